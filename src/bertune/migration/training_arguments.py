"""Every field of transformers' TrainingArguments, and what it is here."""

from __future__ import annotations

from bertune.migration.flag import Flag, command, missing, needless, setting

_RATES = ("train.learning_rate", "train.head_learning_rate")
_NO_PADDING = "batches are random and have no padding; rows of any lengths cost the same"
_LOADER = "rows are read and tokenized once, and lie in memory or in mapped files"
_DDP = "gradients are summed without DistributedDataParallel"
_HUB = "nothing is uploaded; `hf upload REPO OUT` does it"
_RECOMPUTE = "train.micro_batches and train.micro_batch_tokens save memory instead"
_EVALUATION = "dev rows are scored in batches without padding, whose tokens are bounded"
_OPTIMIZER = "AdamW is the only optimizer"
_FSDP = "train.fsdp has no further settings"

TRAINING: tuple[Flag, ...] = (
    setting("output_dir", None, "out", "the folder holds the best model itself, and the last one in last/"),
    setting(
        "per_device_train_batch_size", 8, ("train.batch_size",),
        "x processes x accumulation: one number, the rows of an optimizer step",
    ),
    setting("num_train_epochs", 3.0, "train.epochs", ""),
    setting("max_steps", -1, "train.max_steps", "instead of the epochs, in both; -1 there: no limit"),
    setting("learning_rate", 5e-5, _RATES, "encoder and head have one rate there"),
    setting(
        "lr_scheduler_type", "linear", "train.schedule",
        "linear, cosine, cosine_with_restarts, polynomial, constant, constant_with_warmup; not the others",
    ),
    setting(
        "lr_scheduler_kwargs", None, ("train.schedule_cycles", "train.schedule_power"),
        "num_cycles of cosine_with_restarts, power of polynomial",
    ),
    setting(
        "warmup_steps", 0.0, ("train.warmup_steps", "train.warmup_ratio"),
        "a number below 1 is a fraction of all steps", default_text="0",
    ),
    missing("optim", "adamw_torch_fused", _OPTIMIZER + "; names with adamw are the same computation"),
    missing("optim_args", None, _OPTIMIZER),
    setting("weight_decay", 0.0, "train.weight_decay", "not for biases and norms, in both"),
    setting("adam_beta1", 0.9, "train.adam_beta1", ""),
    setting("adam_beta2", 0.999, "train.adam_beta2", ""),
    setting("adam_epsilon", 1e-8, "train.adam_epsilon", ""),
    missing("optim_target_modules", None, _OPTIMIZER),
    setting(
        "gradient_accumulation_steps", 1, ("train.batch_size", "train.micro_batches"),
        "multiplies the batch there; here the batch is given whole, and cut",
    ),
    needless(
        "average_tokens_across_devices", True, "a loss is the mean over the whole batch, always", kind="bool",
    ),
    setting("max_grad_norm", 1.0, "train.max_grad_norm", ""),
    setting("label_smoothing_factor", 0.0, "options.label_smoothing", "of classify"),
    setting("bf16", False, "train.precision", "bf16, on processors with units for it too", kind="bool"),
    setting("fp16", False, "train.precision", "fp16, on CUDA GPUs", kind="bool"),
    needless("bf16_full_eval", False, "evaluation has the precision of training", kind="bool"),
    needless("fp16_full_eval", False, "evaluation has the precision of training", kind="bool"),
    missing("tf32", None, "the matrix products of fp32 stay fp32; bf16 is faster still", kind="bool"),
    missing("activation_checkpointing", None, _RECOMPUTE, kind="bool"),
    missing("activation_checkpointing_kwargs", None, _RECOMPUTE),
    missing("gradient_checkpointing", None, _RECOMPUTE, kind="bool"),
    missing("gradient_checkpointing_kwargs", None, _RECOMPUTE),
    missing("torch_compile", False, "layers are fast without it", kind="bool"),
    missing("torch_compile_backend", None, "nothing is compiled"),
    missing("torch_compile_mode", None, "nothing is compiled"),
    needless("use_liger_kernel", False, "kernels of decoders", kind="bool"),
    needless("liger_kernel_config", None, "kernels of decoders"),
    needless("use_cache", False, "encoders have no cache of keys", kind="bool"),
    missing("neftune_noise_alpha", None, "train.fgm and train.r_drop regularize instead", kind="float"),
    needless("torch_empty_cache_steps", None, "batches are bounded by tokens", kind="int"),
    needless(
        "auto_find_batch_size", False,
        "a step that runs out of memory is repeated in parts, always", kind="bool",
    ),
    setting("logging_strategy", "steps", "log.every", "steps alone", choices=("no", "steps", "epoch")),
    setting("logging_steps", 500, "log.every", "steps", kind="float"),
    needless("logging_first_step", False, "the first line comes after log.every steps", kind="bool"),
    needless("log_on_each_node", True, "the first process writes", kind="bool"),
    needless(
        "logging_nan_inf_filter", True,
        "a loss that is not finite ends the run; train.max_nonfinite_steps lets some pass, and names them",
        kind="bool",
    ),
    needless("include_num_input_tokens_seen", "no", "tokens/s is on every line"),
    needless("log_level", "passive", "`-q` prints nothing on standard error"),
    needless("log_level_replica", "warning", "the first process writes"),
    needless("disable_tqdm", None, "`-q` prints nothing on standard error", kind="bool"),
    setting(
        "report_to", "none", "log.trackers", "a list of names; history.jsonl is always written", kind="list",
    ),
    missing("run_name", None, "the name of OUT is the name of the run"),
    missing("project", "huggingface", "the name of OUT is the name of the run"),
    missing("trackio_space_id", None, "log.trackers=[trackio] writes on this machine"),
    missing("trackio_bucket_id", None, "log.trackers=[trackio] writes on this machine"),
    missing("trackio_static_space_id", None, "log.trackers=[trackio] writes on this machine"),
    setting(
        "eval_strategy", "no", "train.eval_every",
        "epoch, or the number of eval_steps; no: end. The dev set is also scored at the end",
        choices=("no", "steps", "epoch"),
    ),
    setting(
        "eval_steps", None, "train.eval_every",
        "a number below 1, a fraction, is not available", kind="float",
    ),
    missing("eval_delay", 0.0, "every evaluation counts", default_text="0"),
    needless("per_device_eval_batch_size", 8, _EVALUATION),
    needless("prediction_loss_only", False, "scores are always computed", kind="bool"),
    missing("eval_on_start", False, "`bertune evaluate` scores a folder", kind="bool"),
    needless("eval_do_concat_batches", True, _EVALUATION, kind="bool"),
    needless("eval_use_gather_object", False, _EVALUATION, kind="bool"),
    needless("eval_accumulation_steps", None, _EVALUATION, kind="int"),
    needless("include_for_metrics", (), "metrics belong to the task", kind="list"),
    needless("batch_eval_metrics", False, _EVALUATION, kind="bool"),
    needless(
        "save_only_model", False, "OUT holds the model; checkpoints are removed at the end", kind="bool",
    ),
    setting(
        "save_strategy", "steps", "train.checkpoint_every", "epoch, or the number of save_steps; no: never",
        choices=("no", "steps", "epoch", "best"),
    ),
    setting("save_steps", 500, "train.checkpoint_every", "", kind="float"),
    missing("save_on_each_node", False, "OUT is a folder that all machines see", kind="bool"),
    setting(
        "save_total_limit", None, "train.keep_checkpoints",
        "all there; of a finished run none here", kind="int",
    ),
    needless("enable_jit_checkpoint", False, "SIGTERM and Ctrl-C write a checkpoint, always", kind="bool"),
    missing("push_to_hub", False, _HUB, kind="bool"),
    missing("hub_token", None, "HF_TOKEN, as in huggingface_hub"),
    missing("hub_private_repo", None, _HUB, kind="bool"),
    missing("hub_model_id", None, _HUB),
    missing("hub_strategy", "every_save", _HUB),
    missing("hub_always_push", False, _HUB, kind="bool"),
    missing("hub_revision", None, _HUB),
    needless(
        "load_best_model_at_end", False, "OUT is always the best model, OUT/last the last one", kind="bool",
    ),
    setting("metric_for_best_model", None, "options.metric", "names of the task; the loss is none of them"),
    needless("greater_is_better", None, "a metric knows its direction", kind="bool"),
    needless("ignore_data_skip", False, "a resumed run is where it was at once, bit for bit", kind="bool"),
    needless(
        "restore_callback_states_from_checkpoint", False, "a resumed run knows all it knew", kind="bool",
    ),
    needless(
        "full_determinism", False,
        "a processor gives the same result twice; CUDA as far as torch does", kind="bool",
    ),
    setting("seed", 42, "seed", ""),
    missing("data_seed", None, "seed decides the order of rows too", kind="int"),
    setting("use_cpu", False, "device", "cpu", kind="bool"),
    missing("accelerator_config", None, "a batch is divided by its tokens among processes"),
    missing("parallelism_config", None, "encoders fit on one GPU; train.fsdp shards a model that does not"),
    missing("dataloader_drop_last", False, "every row counts in every epoch", kind="bool"),
    needless("dataloader_num_workers", 0, "batches need none; data.workers=auto tokenizes large data"),
    needless("dataloader_pin_memory", True, _LOADER, kind="bool"),
    needless("dataloader_persistent_workers", False, _LOADER, kind="bool"),
    needless("dataloader_prefetch_factor", None, _LOADER, kind="int"),
    needless("dataloader_multiprocessing_context", None, _LOADER),
    needless("dataloader_in_order", True, _LOADER, kind="bool"),
    needless("remove_unused_columns", True, "a task reads its own columns", kind="bool"),
    needless("label_names", None, "a task has one target; data.columns names it", kind="list"),
    needless(
        "train_sampling_strategy", "random", _NO_PADDING, choices=("random", "sequential", "group_by_length")
    ),
    needless("length_column_name", "length", _NO_PADDING),
    needless("ddp_find_unused_parameters", None, _DDP, kind="bool"),
    needless("ddp_bucket_cap_mb", None, _DDP, kind="int"),
    needless("ddp_broadcast_buffers", None, _DDP, kind="bool"),
    needless("ddp_static_graph", None, _DDP, kind="bool"),
    needless("ddp_backend", None, "nccl on GPUs, gloo on processors"),
    missing("ddp_timeout", 1800, "the timeout is torch's"),
    setting("fsdp", None, "train.fsdp", "true; whole copies are scored and saved"),
    missing("fsdp_config", None, _FSDP),
    missing("deepspeed", None, "refused, with what to do instead: train.fsdp=true"),
    missing("debug", "", "`--debug` shows where an error came from"),
    needless("skip_memory_metrics", True, "the peak of memory is on the last line", kind="bool"),
    command("do_train", False, "bertune train", "", kind="bool"),
    command("do_eval", False, "bertune evaluate", "the dev set is scored during training too", kind="bool"),
    command("do_predict", False, "bertune predict", "", kind="bool"),
    command("resume_from_checkpoint", None, "--resume", "the newest complete checkpoint of OUT, bit for bit"),
    command("local_rank", -1, "torchrun", "the launcher sets it"),
)  # fmt: skip

OLDER: tuple[Flag, ...] = tuple(
    Flag(**{**vars(flag), "version": "v4"})
    for flag in (
        setting(
            "evaluation_strategy",
            "no",
            "train.eval_every",
            "now eval_strategy",
            choices=("no", "steps", "epoch"),
        ),
        setting("warmup_ratio", 0.0, "train.warmup_ratio", "now warmup_steps below 1"),
        setting(
            "per_gpu_train_batch_size", None, "train.batch_size", "x processes x accumulation", kind="int"
        ),
        needless("per_gpu_eval_batch_size", None, _EVALUATION, kind="int"),
        setting("no_cuda", False, "device", "cpu", kind="bool"),
        setting("use_mps_device", False, "device", "mps", kind="bool"),
        needless("group_by_length", False, _NO_PADDING, kind="bool"),
        needless(
            "overwrite_output_dir",
            False,
            "a folder with a run in it is refused: give another `out`",
            kind="bool",
        ),
        setting(
            "evaluate_during_training", False, "train.eval_every", "now eval_strategy=steps", kind="bool"
        ),
        needless("logging_dir", None, "log files are in OUT"),
        missing("adafactor", False, _OPTIMIZER, kind="bool"),
        missing("fp16_opt_level", "O1", "apex is not used; train.precision=fp16"),
        missing("fp16_backend", "auto", "apex is not used; train.precision=fp16"),
        missing("half_precision_backend", "auto", "apex is not used; train.precision=fp16"),
        needless("save_safetensors", True, "safetensors, always", kind="bool"),
        missing("past_index", -1, "encoders have no past"),
        missing("tpu_num_cores", None, "TPUs are not supported", kind="int"),
        missing("tpu_metrics_debug", False, "TPUs are not supported", kind="bool"),
        missing("fsdp_min_num_params", 0, _FSDP),
        missing("fsdp_transformer_layer_cls_to_wrap", None, _FSDP),
        missing("torchdynamo", None, "nothing is compiled"),
        missing("use_ipex", False, "bertune has its own kernels on processors", kind="bool"),
        missing("jit_mode_eval", False, "nothing is compiled", kind="bool"),
        needless("include_inputs_for_metrics", False, "metrics belong to the task", kind="bool"),
        needless("include_tokens_per_second", False, "tokens/s is on every line", kind="bool"),
        missing("push_to_hub_model_id", None, _HUB),
        missing("push_to_hub_organization", None, _HUB),
        missing("push_to_hub_token", None, "HF_TOKEN, as in huggingface_hub"),
        missing("ray_scope", "last", "a trial is scored by its last evaluation"),
        missing("dispatch_batches", None, "every process reads all rows", kind="bool"),
        missing("split_batches", None, "train.batch_size is of all processes together", kind="bool"),
        missing("mp_parameters", "", "SageMaker's model parallelism"),
    )
)

FIELDS = (*TRAINING, *OLDER)
