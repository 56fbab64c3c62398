"""The answers and a script for R, for who wants lme4's mixed model: the same that `mixed_model` fits.

export_r(counted, "for_r")  # then: cd for_r && Rscript mixed_model.R
"""

from pathlib import Path

import pandas as pd

from analysis.clusters import CLUSTER, IMAGE, SUBJECT, codes, numbered
from analysis.mixed_model import random_effects

UNITS = {"subject": SUBJECT, "image": IMAGE, "group": CLUSTER}
SCRIPT = """# Logistic mixed model of the answers with crossed subjects and images.
# install.packages(c("lme4", "emmeans"))
library(lme4)
library(emmeans)

answers <- read.csv("answers.csv", colClasses = c("integer", rep("factor", {factors})))
fit <- glmer(
  picked_model ~ 0 + level + {terms},
  data = answers, family = binomial, control = glmerControl(optimizer = "bobyqa")
)
print(summary(fit))
means <- emmeans(fit, ~ level)
print(confint(means))                                   # logits
print(confint(pairs(means, adjust = "none", type = "response")))  # odds ratios, each with its own interval
print(pairs(means, adjust = "holm"))
"""


def export_r(responses: pd.DataFrame, folder: str | Path, factor: str = "model") -> None:
    """Write answers.csv and mixed_model.R into a folder, which is made; give it what `exclude` kept.

    answers.csv: picked_model (0 or 1), level (of `factor`), subject, image, and group where images are grouped;
    subjects and images of two studies are told apart. The terms are those of `mixed_model`.
    """
    trials = numbered(responses, [factor])
    effects = random_effects(trials, codes(trials[factor]))
    names = ["level", *(name for name in effects if ":" not in name)]
    columns = {name: trials[UNITS[name]] if name in UNITS else trials[factor] for name in names}
    answers = pd.DataFrame({"picked_model": trials["picked_model"], **columns})
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    answers.to_csv(path / "answers.csv", index=False, lineterminator="\n")
    script = SCRIPT.format(factors=len(names), terms=" + ".join(f"(1 | {name})" for name in effects))
    (path / "mixed_model.R").write_text(script, encoding="utf-8")
