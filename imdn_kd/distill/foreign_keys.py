"""Option keys of other distillation projects, mostly forks of BasicSR, and where what they say is given here."""

from __future__ import annotations

_TEACHER = "the teacher's weights are given as network_t.weights"
_TERMS = (
    "losses to a teacher are given as distill.objectives, one entry for each, as l_kd: {type: L1Loss, loss_weight: 1}; "
    "with taps: [body_out] they compare features"
)
_WEIGHT = "each loss has a loss_weight of its own, those to a teacher in distill.objectives"
_NO_EFFECT = "no effect here"

_TEACHER_FILES = (
    *("pretrain_network_t", "pretrain_network_teacher", "pretrain_network_T", "pretrain_model_t", "pretrain_model_T"),
    *("pretrain_teacher", "pretrain_t", "teacher_path", "teacher_model", "teacher_weights", "teacher_model_path"),
)
_TERM_SECTIONS = (
    *("kd_opt", "kd_loss", "kd_loss_opt", "distill_opt", "distill_loss_opt", "distillation", "distillation_opt"),
    *("feature_opt", "feat_opt", "fea_opt", "feature_loss_opt", "fea_loss_opt", "attention_opt", "at_opt"),
    *("logit_opt", "logits_opt", "contrastive_opt", "cl_opt", "affinity_opt", "fa_opt", "relation_opt"),
)
_TERM_WEIGHTS = ("kd_weight", "kd_loss_weight", "distill_weight", "lambda_kd", "alpha_kd", "kd_alpha")

WHOLE = {
    **dict.fromkeys(_TEACHER_FILES, _TEACHER),
    **dict.fromkeys(_TERM_SECTIONS, _TERMS),
    **dict.fromkeys(("network_teacher", "network_T", "teacher", "net_t"), "the teacher is called network_t"),
    "network_student": "the student is called network_g",
    "use_tb_logger": "it is given as logger.use_tb_logger",
}
"""Of the file as a whole."""

PATH = {
    **dict.fromkeys(_TEACHER_FILES, _TEACHER),
    "param_key_t": "it is given as network_t.param_key",
    "strict_load_t": "the weights of a teacher always have to fit; leave it out",
}
"""Of `path`."""

TRAIN = {
    **dict.fromkeys(_TERM_SECTIONS, _TERMS),
    **dict.fromkeys(_TERM_WEIGHTS, _WEIGHT),
    "kd_temperature": "there are no class probabilities to soften; leave it out",
    "temperature": "there are no class probabilities to soften; leave it out",
}
"""Of `train`."""

TEACHER = dict.fromkeys(
    (*_TEACHER_FILES, "pretrain_network_g", "pretrain_path", "pretrain_network", "load_path", "ckpt", "checkpoint"),
    "the teacher's weights are given as weights",
)
"""Of `network_t`."""

HARMLESS_WHOLE = dict.fromkeys(("task", "print_network", "version", "description", "author"), _NO_EFFECT)
HARMLESS_LOGGER = dict.fromkeys(("print_network", "log_level", "use_timestamp"), _NO_EFFECT)
HARMLESS_WANDB = dict.fromkeys(
    ("entity", "name", "group", "tags", "notes", "job_type"),
    "no effect here; wandb takes it from its environment (WANDB_ENTITY, WANDB_NAME, WANDB_RUN_GROUP, ...)",
)
