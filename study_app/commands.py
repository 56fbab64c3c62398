"""`flask --app study_app study …`: what a researcher does with a study, from pack to responses.csv."""

import datetime
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import ScriptInfo, with_appcontext
from sqlalchemy.exc import DatabaseError

from sr3eval import console
from sr3eval.errors import UserError
from sr3eval.files import atomic_write
from study_app import backup as backups
from study_app import export as tables
from study_app import spec as specs
from study_app.accounts import Accounts

if TYPE_CHECKING:
    from study_app.admin import Admin
    from study_app.signing import Keys
    from study_app.tally import Tally

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(path_type=Path)


class Group(console.Group):
    """One line, too, where the database cannot be reached, read or written."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except DatabaseError as error:
            raise click.ClickException(f"the database: {str(error.orig).splitlines()[0]}") from None


@click.group(cls=Group)
@click.pass_context
def study(ctx: click.Context) -> None:
    """Make studies from packs of pictures, run them and export the answers."""
    if ctx.find_object(ScriptInfo) is None:  # called by `sr3eval study`, not by `flask --app study_app study`
        from study_app import create_app

        os.environ["FLASK_RUN_FROM_CLI"] = "true"  # as flask's command sets it: settings.py asks
        ctx.obj = ScriptInfo(create_app=create_app)


@study.command()
@click.argument("folders", nargs=-1, required=True, metavar="FOLDER...")
@click.option("--out", required=True, type=FOLDER, help="The new folder of the pack.")
@click.option(
    "--real", type=FOLDER, help="Folder of the real pictures; without it, models are compared with each other."
)
@click.option("--lr", type=FOLDER, help="Folder of the low-resolution pictures, which Task-1 shows.")
@click.option("--test", type=click.IntRange(1), help="Images to judge, at most; all by default.")
@click.option("--practice", default=4, show_default=True, type=click.IntRange(0))
@click.option("--catch", default=8, show_default=True, type=click.IntRange(0))
@click.option(
    "--seed", default=0, show_default=True, help="Seed by which images, and the windows to cut out, are chosen."
)
@click.option("--crop", metavar="PIXELS", type=click.IntRange(1), help="Cut windows of at most this side.")
@click.option("--windows", type=FILE, help="Table with image_id, left, top of the windows; chosen by seed by default.")
@click.option(
    "--groups", metavar="parent|FILE", help="Images that cluster: those of one folder, or of one `group` in a table."
)
def pack(folders: tuple[str, ...], out: Path, real: Path | None, lr: Path | None, **options: Any) -> None:
    """Pack the pictures of plain folders; each FOLDER, or NAME=FOLDER, holds a model's outputs."""
    from study_app import folders as plain

    if options["windows"] and not options["crop"]:
        raise click.UsageError("--windows says where and --crop how large: give both")
    with console.stages() as tell:
        plain.pack(
            out,
            _named(folders),
            real,
            lr,
            (options["test"], options["practice"], options["catch"]),
            plain.Windows(options["crop"], options["seed"], options["windows"]),
            plain.grouping(options["groups"]),
            tell,
        )
    click.echo(out)


@study.command()
@click.argument("name", metavar="STUDY")
@click.option("--models", help="Comma-separated methods that will be judged; those of `pairs` by default.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the study.")
@click.option("--out", type=FILE, default="preregistration.md", show_default=True)
def preregister(name: str, models: str | None, overrides: tuple[str, ...], out: Path) -> None:
    """Write a preregistration of STUDY, a built-in study or a TOML file: design, tests, exclusions, power."""
    from study_app.preregistration import preregistration

    settings = specs.load(name, overrides)
    named = models.split(",") if models is not None else list(dict.fromkeys(itertools.chain(*settings.pairs)))
    if not named:
        raise click.UsageError("--models: name the methods that will be judged")
    if out.exists():
        raise UserError(f"{out}: already exists; choose another name")
    atomic_write(out, preregistration(settings, named).encode())
    click.echo(f"{out}: complete what is marked [FILL IN]")


@study.command()
@click.argument("pack", type=FOLDER)
@click.option("--study", "name", required=True, help="A built-in study by name, or a TOML file.")
@click.option("--slug", help="Its name in addresses; by default the study's name.")
@click.option("--models", help="Comma-separated methods of the pack; all by default.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the study.")
@with_appcontext
def create(pack: Path, name: str, slug: str | None, models: str | None, overrides: tuple[str, ...]) -> None:
    """Make a draft from the pictures in PACK."""
    from study_app.pack import Pack

    settings = specs.load(name, overrides)
    source = Pack(pack)
    named = models.split(",") if models is not None else dict.fromkeys(itertools.chain(*settings.pairs))
    chosen = source.slugs(list(named))
    if settings.against:
        against = source.reference(settings, chosen)
        chosen = {model: folder for model, folder in chosen.items() if folder != against}
    settings.check_models(list(chosen))
    settings.check_contact()
    slug = slug or Path(name).stem
    _admin().create(slug, settings, list(chosen), source.pairs(settings, chosen))
    click.echo(f"{slug}: draft with {', '.join(chosen)}; look at it: /admin/{slug}/preview")
    if dead_ends := settings.recruitment.dead_ends:
        click.echo(
            f"warning: recruitment.codes has none for {', '.join(dead_ends)}: people who leave in this way get no link "
            "back to where they came from",
            err=True,
        )
    click.echo(f"next: flask --app study_app study freeze {slug}")


@study.command()
@click.argument("slug")
@click.option("--salt", help="Draw the plan from this instead of a secret; only for repeatable simulations.")
@with_appcontext
def freeze(slug: str, salt: str | None) -> None:
    """Plan who sees what; afterwards, nothing of the study can change."""
    _admin().freeze(slug, salt)
    click.echo(f"{slug}: frozen; next: flask --app study_app study run {slug}")


@study.command()
@click.argument("slug")
@with_appcontext
def run(slug: str) -> None:
    """Open the study to subjects."""
    _admin().move(slug, "run")
    click.echo(f"{slug}: running at /s/{slug}")


@study.command()
@click.argument("slug")
@with_appcontext
def pause(slug: str) -> None:
    """Let nobody else begin; those who have begun may finish. `run` opens it again."""
    _admin().move(slug, "pause")
    click.echo(f"{slug}: paused")


@study.command()
@click.argument("slug")
@with_appcontext
def close(slug: str) -> None:
    """Let nobody else begin, for good; those who have begun may finish."""
    _admin().move(slug, "close")
    click.echo(f"{slug}: closed")


@study.command()
@click.argument("slug")
@click.argument("codes", nargs=-1)
@click.option("--reason", default="researcher", show_default=True, help="What the export gives as the reason.")
@with_appcontext
def reopen(slug: str, codes: tuple[str, ...], reason: str) -> None:
    """Exclude finished sessions, by subject or completion code, and give their places to others.

    Without CODES: everybody who failed the catch trials, in a study that does not replace them automatically.
    """
    count = _admin().reopen(slug, codes, reason)
    click.echo(
        f"{slug}: {count} place{'' if count == 1 else 's'} free again; next: flask --app study_app study run {slug}"
    )


@study.command()
@click.argument("slug")
@click.option("--count", type=click.IntRange(1, 10_000), help="Number of links.")
@click.option(
    "--names",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Names, one per line; each gets a link.",
)
@click.option(
    "--url", default="http://localhost:5000", show_default=True, help="Address at which subjects reach the server."
)
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), help="Last day (UTC) on which the links let somebody begin."
)
@click.option("--revoke", multiple=True, metavar="PERSON", help="Revoke this person's link.")
@with_appcontext
def invite(
    slug: str,
    count: int | None,
    names: Path | None,
    url: str,
    until: datetime.datetime | None,
    revoke: tuple[str, ...],
) -> None:
    """Print links for one participation each as CSV: name, person, link. Or --revoke links, by `person`.

    The names stay in this table; the study knows people by the random `person` alone.
    """
    if (count is not None) + (names is not None) + bool(revoke) != 1:
        raise click.UsageError("give one of --count, --names and --revoke")
    keys = _server_keys()
    if revoke:
        count = _admin().revoke(slug, revoke, keys)
        click.echo(f"{slug}: {count} link{'' if count == 1 else 's'} revoked")
        return
    called = names.read_text(encoding="utf-8-sig").split("\n") if names else [""] * (count or 0)
    people = [name.strip() for name in called if count or name.strip()]
    links = _admin().invite(slug, len(people), url.rstrip("/"), keys, until.date() if until else None)
    rows = [(name, *link) for name, link in zip(people, links, strict=True)]
    click.echo(tables.to_csv(["name", "person", "link"], rows), nl=False)


@study.command("forget-identities")
@click.argument("slug")
@with_appcontext
def forget_identities(slug: str) -> None:
    """Delete the ids that Prolific, MTurk or invitations gave, once everybody is paid."""
    click.echo(f"{slug}: {_admin().forget_identities(slug)} identities deleted")


@study.command("list")
@with_appcontext
def list_() -> None:
    """Show the progress of every condition of every study."""
    _show(_admin().counts())


@study.command()
@click.argument("slug")
@with_appcontext
def show(slug: str) -> None:
    """Print a study's settings with their hash."""
    click.echo(_admin().config(slug), nl=False)


@study.command()
@click.argument("slug")
@click.option("--out", type=FILE, help="responses.csv by default; choices.csv for pairs of models.")
@click.option("--sessions", type=FILE, help="Also a table of sessions: completion codes, answers to questions.")
@click.option("--events", type=FILE, help="Also a table of what happened in the browsers.")
@click.option("--codebook", type=FILE, help="Also what every column means, as JSON Schema.")
@with_appcontext
def export(slug: str, out: Path | None, **others: Path | None) -> None:
    """Write one row per response, or per choice for pairs of models; a file named .parquet is written as Parquet."""
    answers = tables.answers_table(_admin().database, slug)
    for name, path in {answers: out or Path(f"{answers}.csv"), **others}.items():
        if path is not None:
            text = tables.export(_admin(), slug, name)
            atomic_write(path, tables.to_parquet(text, name) if path.suffix == ".parquet" else text.encode())
            click.echo(path)


@study.command()
@click.argument("slug")
@click.option("--out", required=True, type=FOLDER, help="The new folder of the data set.")
@click.option("--licence", default="cc-by-4.0", show_default=True, help="Licence of the votes, as named on the card.")
@with_appcontext
def publish(slug: str, out: Path, licence: str) -> None:
    """Write the votes as a data set to be published: anonymous, with a card, and its pictures by checksum."""
    from study_app.publication import publish as write

    write(_admin(), slug, out, licence)
    click.echo(f"{out}: complete what its README.md marks [FILL IN]")


@study.command()
@click.argument("out", type=FILE)
@with_appcontext
def backup(out: Path) -> None:
    """Write a copy of the whole database to the new file OUT, while people answer."""
    backups.backup(_admin(), out)
    click.echo(out)


@study.command()
@click.argument("copy", type=FILE)
@with_appcontext
def restore(copy: Path) -> None:
    """Fill the database, which must hold no study, from the backup COPY."""
    backups.restore(_admin(), copy)
    click.echo(f"{_admin().database.url.database}: restored from {copy}; next: flask --app study_app study list")


@study.command("delete-participant")
@click.argument("code")
@with_appcontext
def delete_participant(code: str) -> None:
    """Delete the data of the participant with this subject or completion code."""
    erased = _admin().delete_participant(code)
    click.echo(f"{code}: deleted" + (", with the answers" if erased else "; the answers stay, as the study says"))


@study.command()
@click.argument("slug")
@click.option("--confirm", metavar="SLUG", help="The study's name once more; asked for by default.")
@with_appcontext
def delete(slug: str, confirm: str | None) -> None:
    """Delete a closed study, or a draft, with its pictures, people and answers, for good. The log keeps its entries."""
    if confirm is None:
        _show(_admin().counts(slug))
        confirm = click.prompt(f"All of this goes. Type {slug} to delete it")
    _admin().delete_study(slug, confirm)
    current_app.extensions["study_preview"].forget(slug)
    click.echo(f"{slug}: deleted")


@study.command()
@click.argument("name")
@click.option("--remove", is_flag=True, help="Delete the account.")
@with_appcontext
def admin(name: str, remove: bool) -> None:
    """Set the password with which NAME logs in to the admin pages; it is asked for."""
    accounts = Accounts(_admin())
    if remove:
        accounts.remove(name)
        click.echo(f"{name}: removed")
        return
    accounts.set_password(name, click.prompt("Password", hide_input=True, confirmation_prompt=True))
    click.echo(f"{name}: may log in at /admin")


def _show(counts: Sequence["Tally"]) -> None:
    for count in counts:
        progress = f"{count.counted} of {count.target} finished, {count.active} active"
        progress += f", {count.excluded} excluded" if count.excluded else ""
        click.echo(f"{count.study} ({count.state})  {count.condition}: {progress}")


def _named(folders: Sequence[str]) -> dict[str, Path]:
    """{model: folder} of FOLDER or NAME=FOLDER."""
    parts = [folder.rpartition("=") for folder in folders]
    named = {name or Path(folder).resolve().name: Path(folder) for name, _, folder in parts}
    if len(named) < len(folders):
        raise click.UsageError("two models have the same name; write NAME=FOLDER")
    return named


def _server_keys() -> "Keys":
    """The server's, or UserError: links that are signed by a key of this machine's own hold on no server."""
    if not (current_app.extensions["study_key_is_given"] or current_app.debug):
        raise UserError("STUDY_SECRET_KEY is missing: set it to the server's, which checks the links")
    return current_app.extensions["study_keys"]


def _admin() -> "Admin":
    return current_app.extensions["study_admin"]
