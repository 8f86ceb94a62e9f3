"""Options and settings, by name, that the commands treat alike. Imports no torch."""

RUN = ("run", "runs_dir", "ckpt_path")  # select a run
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.limit_train_batches", "trainer.accumulate_grad_batches")
NOT_ZERO = (*LENGTH, "trainer.check_val_every_n_epoch", "trainer.val_check_interval")

# settings that define the length of training and of its steps
OF_LENGTH = (*LENGTH, "data.init_args.batch_size")
# settings that a checkpoint holds too, and that it would override
OF_TRAINING = (
    *("model.init_args.optimizer", "model.init_args.lr_scheduler", "model.init_args.lr_interval"),
    *("model.init_args.param_groups", "model.init_args.no_decay", "model.init_args.layer_decay"),
    *("model.init_args.scale_lr", "trainer.devices", "trainer.num_nodes", *OF_LENGTH),
)
# options of a single start, which are not settings of the run
OF_STARTING = (*RUN, "name", "config", "data.init_args.overwrite_split")

# options of fit, validate and test that the commands about data ignore in configs
IGNORED = (
    "trainer",
    "callbacks",
    "model",
    "checkpoint",
    *RUN,
    "name",
    "test_after_fit",
    "weights_only",
    "verbose",
    "report",
)
