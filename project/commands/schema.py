"""``schema``: print a JSON schema of recipes, with which editors complete and check them."""

from project.commands.light_parser import LightParser


def run(args: list[str]) -> None:
    """Print the schema, and exit.

    Raises:
        SystemExit: Always.
    """
    LightParser("schema", "Print a JSON schema of recipes: schema > configs/schema.json").parse_args(args)
    from project.cli.cli import run as run_cli  # importing torch takes seconds
    from project.cli.schema import PrintSchema

    run_cli(["fit"], PrintSchema)
