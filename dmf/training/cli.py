"""``dmf-train``: one TOML file becomes one run, which any interruption only delays."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dmf.training.config import CONFIGS, read
from dmf.training.state import TrainingStopped
from runtime import commandline

PROG = "dmf-train"
EPILOG = f"""\
shipped configs: {", ".join(path.stem for path in sorted(CONFIGS.glob("*.toml")))}

examples:
  dmf-train dmf_nano_digits --out build/digits
  dmf-train dmf_nano_digits --out build/digits --resume
  dmf-train retinanet_dmf_nano_digits --out build/detector
  dmf-train dmf_xxs_imagenet --out runs/xxs --set data.path=/data/imagenet
  dmf-train retinanet_dmf_s_coco --out runs/retinanet --set data.path=/data/coco --set model.backbone_weights=dmf_s.pth
  torchrun --nproc-per-node 8 -m dmf.training.cli dmf_s_imagenet --out runs/s --set data.path=/data/imagenet

the run's folder: state.pt (to resume from), config.toml, metrics.csv, tensorboard/, and at the end
curves.png, model.safetensors (the averaged weights of the last step), summary.json

exit codes: 0 done, 2 wrong arguments, config or data, {TrainingStopped.exit_code} training stopped early \
(NaN loss or a full disk; the last
good checkpoint is named), 130 interrupted"""


def build_parser() -> commandline.ArgumentParser:
    """The command's arguments."""
    parser = commandline.ArgumentParser(
        prog=PROG,
        description="Train a Dynamic Mobile-Former, or a detector on one, by the paper's recipe.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("config", metavar="CONFIG", help="a TOML file, or the name of a shipped one")
    add("--out", metavar="DIR", required=True, help="the run's folder")
    add("--resume", action="store_true", help="go on with the run in the folder, to the weights it would have had")
    add("--set", action="append", default=[], metavar="SECTION.FIELD=VALUE", help="change the config; may be repeated")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    add("--quiet", action="store_true", help="no progress on stderr")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dmf-train`` and return its exit code."""
    return commandline.run(PROG, _train, argv)


def _train(argv: Sequence[str] | None) -> int:
    arguments = build_parser().parse_args(argv)
    config = read(arguments.config, arguments.set)
    # what follows needs seconds to import; a mistyped argument shall not
    import torch

    from dmf.training.distributed import joined
    from dmf.training.run import train

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with joined(device) as processes:
        if processes.first and not arguments.quiet:
            print(config.to_toml(), file=sys.stderr)
        summary = train(config, Path(arguments.out), processes, resume=arguments.resume, quiet=arguments.quiet)
    if summary:
        print(json.dumps({k: v for k, v in summary.items() if k != "config"}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
