"""Documents in Markdown that are filled from a study."""

from typing import Any

import jinja2


def filled(template: str, **facts: Any) -> str:
    """A template of templates/ with these facts; one that the template needs and does not get is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("study_app"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(facts)
