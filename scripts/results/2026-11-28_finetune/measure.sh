# Run from a clone with data/cifar-10-python.tar.gz: bash scripts/results/2026-11-28_finetune/measure.sh WORK_DIRECTORY
# Trains LeNet on five classes of CIFAR-10, then on 200 images of each of the other five, with and without its weights.
set -eu
work=$1
python -m project prepare --config configs/lenet.yaml
python - "$work" <<'PYTHON'
import sys
from pathlib import Path

images, work = Path("data/cifar10/images").resolve(), Path(sys.argv[1])
names = "airplane automobile bird cat deer dog frog horse ship truck".split()
for folder, chosen, counts in (("source", names[:5], (4500, 500, 1000)), ("target", names[5:], (200, 500, 1000))):
    for name in chosen:
        train, test = (sorted((images / stage / name).iterdir()) for stage in ("train", "test"))
        val = train[-500:]
        for stage, files in zip(("train", "val", "test"), (train[: counts[0]], val, test), strict=True):
            place = work / folder / stage / name
            place.mkdir(parents=True, exist_ok=True)
            for file in files:
                (place / file.name).symlink_to(file)
PYTHON
options="--config configs/lenet.yaml --data datamodules.FolderDataModule --callbacks false"
options="$options --data.num_workers 0 --trainer.enable_progress_bar false --report false --runs_dir $work/runs --test_after_fit true"
python -m project fit $options --data.root $work/source --trainer.max_epochs 10 --name source
file=$(ls $work/runs/lenet/*source/checkpoints/best.ckpt)
target="--data.root $work/target --data.batch_size 64 --trainer.max_epochs 30 --trainer.log_every_n_steps 5"
for seed in 0 1 2; do
  python -m project fit $options $target --seed_everything $seed --name scratch_$seed
  python -m project fit $options $target --seed_everything $seed --name finetuned_$seed --model.optimizer.lr 0.01 \
    --model.pretrained $file --data.normalize pretrained --model.param_groups '[{pattern: "fc3.*", lr_scale: 5}]'
done
