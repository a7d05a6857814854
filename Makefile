# `make` lists the targets. Everything runs in an environment of its own, .venv, which is made on first use.
# PYTHON is the interpreter to make it with (3.10 or later): make venv PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= train,deploy,study,video,hub,web,docs,dev
DEMO := experiments/quickstart_distill
MODEL := models/net_g_latest.safetensors
PICTURE := datasets/sample_valid/LRbicx2/coffeex2.png

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# The zoo. STUDENT: its name (default: the next in options/zoo/line.txt); PHOTOS: folder of the training photographs;
# LIST: those of them that go into a pack; NOTES: Markdown on data and licences for the card (default: that of the
# student's card, if it was trained on the same photographs).
STUDENT ?=
MINUTES ?= 50
LIST ?= $(PHOTOS)/list.txt
SETS := datasets/kodak24 datasets/edges datasets/Set5 datasets/Set14
EDGES := options/zoo/edges.txt
PACK := datasets/pack.tar
PACK_LIMIT := 62914560
STUDENTS = $(or $(STUDENT),$(shell sed 's/\#.*//' options/zoo/line.txt))
TEACHERS = $(sort $(shell sed -n 's/^  weights: //p' $(STUDENTS:%=options/zoo/%.yml)))

.PHONY: help venv demo test test-fast lint docs api bench zoo pack study-smoke clean

help:
	@echo "make demo    train and distil a small student on photographs at hand (a few minutes), compare the results on a page"
	@echo "make test    checks of style and types, then all tests"
	@echo "make test-fast  the tests that take no longer than two seconds and start no other process, with fewer examples"
	@echo "make lint    the checks of style and types alone"
	@echo "make docs    the documentation site, in build/site, with the page that runs in a browser if there is npm"
	@echo "make api     write down the public names and signatures, once a change of them is in the changelog"
	@echo "make study-smoke  a study of three arms on photographs at hand: two minutes; see docs/studies.md"
	@echo "make bench   speed as ratios, both sides in the same run"
	@echo "make zoo     train the next student that ships, or STUDENT=NAME: MINUTES=50 PHOTOS=folder; see docs/zoo.md"
	@echo "make pack    the data and the teachers in one archive, for make zoo on another machine"
	@echo "make venv    the environment alone (installs torch: several GB)"
	@echo "make clean   remove the environment and what tools left behind; data and experiments stay"

venv: $(INSTALLED)

# Without isolation: BasicSR names torch among what it is built with, and all of that would be installed twice.
$(INSTALLED): setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[$(EXTRAS)]"
	touch $@

# One thread: the patches are so small that on a busy machine threads mostly wait for each other.
demo: $(INSTALLED)
	$(BIN)/imdn-kd prepare sample sample_valid --scale 2
	OMP_NUM_THREADS=1 $(BIN)/imdn-kd train -opt options/quickstart.yml --auto_resume
	OMP_NUM_THREADS=1 $(BIN)/imdn-kd train -opt options/quickstart_distill.yml --auto_resume
	$(BIN)/imdn-kd upscale $(PICTURE) --output $(DEMO)/coffee_sr.png --model $(DEMO)/$(MODEL) --overwrite
	$(BIN)/imdn-kd benchmark --model bicubic --model imdn_rtc_x2 --model experiments/quickstart/$(MODEL) --model $(DEMO)/$(MODEL) --data sample_valid --scale 2
	@$(BIN)/imdn-kd compare $(PICTURE) --hr datasets/sample_valid/HR/coffee.png --output $(DEMO)/comparison.html --overwrite \
	    --model experiments/quickstart/$(MODEL) --label "student alone" --model $(DEMO)/$(MODEL) --label "distilled student" \
	    --model imdn_rtc_x2 --label teacher --quiet
	@echo "Open in a browser, to compare: $(CURDIR)/$(DEMO)/comparison.html"

# One thread a worker: threads of several workers on the same cores wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: lint
	$(PYTEST)

test-fast: $(INSTALLED)
	$(PYTEST) -m "not slow and not processes" --hypothesis-profile few

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The demo needs npm; without it the site has none. Anew each time: what is generated is not seen to change.
docs: $(INSTALLED)
	-$(BIN)/imdn-kd export plain_m_x4 --to web -o build/site/demo --overwrite --quiet
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env -q -c docs . build/site
	@echo "open build/site/index.html"

api: $(INSTALLED)
	$(BIN)/python -m tests.api

study-smoke: $(INSTALLED)
	$(BIN)/imdn-kd prepare sample sample_valid --scale 2
	$(BIN)/imdn-kd prepare sample --format folder --scale 2
	$(BIN)/imdn-kd study -opt options/study/smoke.yml --processes 2

bench: $(INSTALLED)
	$(BIN)/python -m tests.bench

# Resumes the run that is there, or begins from the student that ships; stopped, the same command goes on.
zoo: $(INSTALLED) datasets/photos.store
	$(BIN)/imdn-kd zoo train $(STUDENT) --minutes $(MINUTES) $(if $(NOTES),--notes $(NOTES))

# Photographs that weights are selected on, held out of training. Made once; a pack contains them.
datasets/edges:
	@test -d "$(PHOTOS)" || { echo "make zoo PHOTOS=FOLDER: give the folder of the training photographs" >&2; exit 2; }
	@rm -rf $@.part && mkdir -p $@.part
	@while IFS= read -r file; do \
	    case $$file in ''|'#'*) continue;; esac; \
	    cp '$(PHOTOS)'/"$$file" $@.part/ 2>/dev/null || { \
	        rm -rf $@.part; \
	        echo "$(PHOTOS)/$$file: cannot be copied, but $(EDGES) lists it; give the folder that has it" >&2; exit 2; }; \
	done < $(EDGES)
	@mv $@.part $@

datasets/photos.store: | datasets/edges $(INSTALLED)
	@test -d "$(PHOTOS)" || { echo "make zoo PHOTOS=FOLDER: give the folder of the training photographs" >&2; exit 2; }
	$(BIN)/imdn-kd prepare folder '$(PHOTOS)' --scale 2 --scale 3 --scale 4 $(SETS:%=--exclude-like %) --output $@

# To unpack beside this file on the other machine: tar xf pack.tar, then make zoo PHOTOS=datasets/pack.
pack: datasets/edges
	@test -f "$(LIST)" || { echo "make pack PHOTOS=FOLDER LIST=FILE: give the list of photographs to pack" >&2; exit 2; }
	@trap 'rm -f $(PACK).part' EXIT; \
	tar --create --file $(PACK).part --dereference $(SETS) $(TEACHERS) && \
	tar --append --file $(PACK).part --dereference --directory '$(PHOTOS)' --transform 's,^,datasets/pack/,' --files-from $(abspath $(LIST)) && \
	if test $$(wc -c < $(PACK).part) -le $(PACK_LIMIT); then mv $(PACK).part $(PACK); \
	else echo "$(PACK): would be larger than 60 MiB; give a shorter LIST" >&2; exit 2; fi

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
