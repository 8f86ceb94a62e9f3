"""Print the param groups of an optimizer."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Column, Table
from torch import nn
from torch.optim import Optimizer

from lightning_modules.optim.param_groups import Group


def param_group_table(network: nn.Module, groups: Sequence[Group], optimizer: Optimizer) -> Table:
    """Return a table of the groups, with their learning rates: the peak of a cycle, or else the initial one."""
    rows = []
    built = iter(optimizer.param_groups)
    for group in groups:
        rule, trained = group.rule, group.trained(network)
        if trained:
            settings = next(built)
            notes = [f"{key}={value}" for key, value in rule.options.items()]
            if "max_momentum" in settings:
                notes.append(f"momentum {settings['base_momentum']:g} to {settings['max_momentum']:g}")
            elif settings.get("momentum"):
                notes.append(f"momentum {settings['momentum']:g}")
            if rule.schedule is not None:
                notes.append(getattr(rule.schedule, "__name__", str(rule.schedule)))
            if rule.unfreeze_epoch:
                notes.append(f"frozen until epoch {rule.unfreeze_epoch}")
            lr = settings.get("max_lr", settings.get("initial_lr", settings["lr"]))
            cells = [f"{lr:g}", f"{settings.get('weight_decay', 0):g}", ", ".join(notes)]
        else:
            trained, cells = [network.get_parameter(name) for name in group.parameters], ["frozen", "-", ""]
        rows.append([group.name, rule.pattern, f"{sum(parameter.numel() for parameter in trained):,}", *cells])
    titles = ("group", "pattern", "parameters", "lr", "weight decay", "more")
    table = Table(*(Column(title, overflow="fold") for title in titles), title="Parameter groups")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
