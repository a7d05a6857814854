"""Models on the Hugging Face Hub: folders of a model file, its card and its description.

    Upscaler("student.safetensors").push_to_hub("me/student")
    upscaler = Upscaler.from_pretrained("me/student")

Reading and writing such a folder on the own disk needs nothing; the Hub needs huggingface_hub (the extra `hub`), which
looks after names, tokens and its cache (https://huggingface.co/docs/huggingface_hub).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from imdn_kd import __version__
from imdn_kd.config.yaml import dump_yaml
from imdn_kd.errors import InputError
from imdn_kd.inference.graph_file import GraphNetwork
from imdn_kd.inference.model_file import FORMAT, ModelFile, save_model
from imdn_kd.inference.weights import read_weight_file
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import one_line

MODEL, CARD, CONFIG = "model.safetensors", "README.md", "config.json"
"""The files of a folder; the Hub shows the card, and counts downloads by the description."""

_LIBRARY = "imdn_kd"

T = TypeVar("T", bound="HubMixin")


class HubMixin(ABC):
    """What lets an `Upscaler` be saved to and loaded from folders and the Hub."""

    @abstractmethod
    def _source(self) -> tuple[Path | None, ModelFile]:
        """The model, and the file that it was read from, if there is one."""

    @classmethod
    def from_pretrained(
        cls: type[T],
        model: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **options: Any,  # noqa: ANN401 - as of the class
    ) -> T:
        """Make an `Upscaler` of a model of the Hub, or of a folder of `save_pretrained`.

        Args:
            model: a folder, or the name of a repository of the Hub, `OWNER/NAME`. A folder of that name comes first.
            revision: branch, tag or commit of the repository (default: its main branch).
            token: for repositories that are not public (default: that of `hf auth login`).
            cache_dir: where downloads are kept (default: that of huggingface_hub).
            local_files_only: take what was downloaded before, without asking the Hub.
            **options: those of `Upscaler`, such as `device` and `engine`.

        Raises:
            InputError: `hub.no-model`, no such folder, repository or model in it; `hub.not-installed`; and as
                `Upscaler`.
        """
        make: Callable[..., T] = cls
        folder = Path(model)
        if folder.is_dir():
            if not (folder / MODEL).is_file():
                raise InputError(f"{folder}: has no {MODEL}; give a folder of save_pretrained", code="hub.no-model")
            return make(folder / MODEL, **options)
        hub = _huggingface_hub()
        try:
            found = hub.hf_hub_download(
                str(model),
                MODEL,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                library_name=_LIBRARY,
                library_version=__version__,
            )
        except Exception as error:  # of many kinds: names, permissions, the network
            raise InputError(
                f"{model}: is no folder here, and {MODEL} of a repository of that name cannot be had from the Hub "
                f"({one_line(str(error))}); correct the name, OWNER/NAME, or log in with `hf auth login`",
                code="hub.no-model",
            ) from error
        return make(Path(found), **options)

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> None:
        """Write the model, its card and its description into a folder.

        Args:
            folder: a new or empty one, or one that this has written; what was written before is replaced.
            license: of the weights, by the Hub's short name, such as `apache-2.0` (default: not stated).

        Raises:
            InputError: `hub.other-folder`, there are other files in the folder; `hub.many-models`, `hub.exported`,
                `model.not-registered`: there is no single model that a file could hold; or it cannot be written.
        """
        self._write(Path(folder), license, name=Path(folder).resolve().name, repository=str(folder))

    def push_to_hub(
        self,
        repository: str,
        *,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str | None = None,
    ) -> str:
        """Upload the model, its card and its description; the repository is made if there is none.

        Args:
            repository: its name on the Hub, `OWNER/NAME`.
            license: of the weights, by the Hub's short name, such as `apache-2.0` (default: not stated).
            private: whether a new repository is seen by its owner alone (default: as the owner's settings have it).
            token: that may write (default: that of `hf auth login`).
            revision: branch to write to (default: the main one).
            commit_message: of the upload.

        Returns:
            The address of the repository.

        Raises:
            InputError: `hub.not-installed`; `hub.upload`, the Hub does not take it; and as `save_pretrained`.
        """
        hub = _huggingface_hub()
        with tempfile.TemporaryDirectory() as temporary:
            self._write(Path(temporary), license, name=repository.rpartition("/")[2], repository=repository)
            try:
                api = hub.HfApi(token=token, library_name=_LIBRARY, library_version=__version__)
                made = api.create_repo(repository, private=private, exist_ok=True)
                api.upload_folder(
                    repo_id=made.repo_id,
                    folder_path=temporary,
                    revision=revision,
                    commit_message=commit_message or f"Upload a model of {_LIBRARY} {__version__}",
                )
            except Exception as error:  # of many kinds: names, permissions, the network
                raise InputError(
                    f"{repository}: cannot be uploaded ({one_line(str(error))}); correct the name, OWNER/NAME, or log "
                    "in with `hf auth login`",
                    code="hub.upload",
                ) from error
        return str(made)

    def _write(self, folder: Path, license: str | None, *, name: str, repository: str) -> None:
        path, model = self._source()
        _check_folder(folder)
        if isinstance(model.network, GraphNetwork):
            raise InputError(f"{path}: is an exported file; give the model that it was made from", code="hub.exported")
        if path is not None and read_weight_file(path).metadata.get("format") == FORMAT:
            with atomic_path(folder / MODEL) as temporary:
                shutil.copyfile(path, temporary)  # byte for byte, with weights in fp16 if it has such
        else:
            save_model(folder / MODEL, model)
        for file, text in ((CONFIG, _config(model)), (CARD, _card(model, license, name, repository))):
            with atomic_path(folder / file) as temporary:
                temporary.write_text(text, encoding="utf-8")


def _check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything else, such as the README of a project."""
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found and not (found <= {MODEL, CARD, CONFIG} and {MODEL, CONFIG} <= found):
        raise InputError(f"{folder}: has other files; choose a new folder for the model", code="hub.other-folder")


def _huggingface_hub() -> Any:  # noqa: ANN401 - an untyped module to us
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"the Hugging Face Hub needs huggingface_hub; {how_to_install('hub')}", code="hub.not-installed"
        ) from error
    return huggingface_hub


def _config(model: ModelFile) -> str:
    described = {
        "library_name": _LIBRARY,
        "library_version": __version__,
        "architecture": model.network.spec,
        "scale": model.network.info.scale,
    }
    return json.dumps(described, indent=2) + "\n"


def _card(model: ModelFile, license: str | None, name: str, repository: str) -> str:
    """The card of the model file, or a short one, after what the Hub reads and how to load it."""
    header: dict[str, Any] = {"library_name": _LIBRARY, "pipeline_tag": "image-to-image", "tags": ["super-resolution"]}
    if license is not None:
        header["license"] = license
    about = model.card or f"# {name}\n\n{model.network.info}\n"
    use = f'```python\nfrom imdn_kd import Upscaler\n\nupscaler = Upscaler.from_pretrained("{repository}")\n```\n'
    return f"---\n{dump_yaml(header)}---\n\n{about.rstrip()}\n\n## From Python\n\n{use}"
