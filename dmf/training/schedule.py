"""Learning rate, temperature and averaging decay in closed form; `t` counts epochs and has fractions within one."""

from math import cos, pi

from dmf.training.config import EMAConfig, ScheduleConfig


def learning_rate(schedule: ScheduleConfig, peak: float, t: float) -> float:
    """Linear from 0 to `peak` over the warm-up, then half a cosine down to `final_lr` at the last epoch's end.

    With milestones, instead of the cosine: a tenth of what it was in every epoch after the first `milestones[0]`, and
    so on.

    `t` is how many epochs are done with the step that takes this rate, so no step has rate 0.
    """
    if t < schedule.warmup_epochs:
        return peak * t / schedule.warmup_epochs
    if schedule.milestones:
        return peak * 0.1 ** sum(t > milestone for milestone in schedule.milestones)
    share = (t - schedule.warmup_epochs) / (schedule.epochs - schedule.warmup_epochs)
    return schedule.final_lr + (peak - schedule.final_lr) * (1 + cos(pi * share)) / 2


def temperature(schedule: ScheduleConfig, epoch: int) -> float:
    """Of every kernel attention in this epoch, counted from 0 (section 3.3): linear down to exactly 1, where it stays.

    A high temperature makes the routing even, so that every kernel of a bank learns before any is preferred.
    """
    if epoch >= schedule.temperature_epochs:
        return 1.0
    return schedule.temperature + (1 - schedule.temperature) * epoch / schedule.temperature_epochs


def ema_decay(ema: EMAConfig, updates: int) -> float:
    """Of the average that has seen this many updates; the ramp lets a run far shorter than 1 / (1 - decay) warm up."""
    return min(ema.decay, (1 + updates) / (10 + updates)) if ema.ramp else ema.decay
