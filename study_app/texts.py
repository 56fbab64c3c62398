"""What a study says where its TOML does not: questions, buttons, consent, last page. spec.py translates it."""

from study_app.languages import N_, SOURCE, catalog

# The two questions of the paper, §4.5.3; to the letter.
QUESTIONS = {
    1: N_("Which of the two images is a better high quality version of the low resolution image in the middle?"),
    2: N_("Which image would you guess is from a camera?"),
}
ANSWERS = (N_("Left"), N_("Right"))
DEBRIEF = N_(
    "Thank you. In each pair one picture was taken by a camera and the other was computed from a small version of "
    "it. Your answers show how convincing the computed pictures are."
)
DEBRIEF_OF_MODELS = N_(
    "Thank you. In each pair both pictures were computed from a small version of one photograph, by different "
    "programs. Your answers show which of them people prefer."
)
WHAT = N_(
    "You are invited to take part in a study of how people see pictures. You will look at pairs of pictures, each for "
    "a few seconds, and after each pair press one of two buttons."
)
WHAT_BY_BUTTONS = N_(
    "You are invited to take part in a study of how people see pictures. You will look at pairs of pictures, each for "
    "a few seconds, and after each pair answer by pressing a button."
)
STORED = N_(
    "We store which button you pressed and when, how long the pictures were on your screen, whether the study's "
    "window stayed in front, the size of that window, the type of your screen, and your answers to the questions at "
    "the end."
)
NO_NAME = N_("We do not ask for your name, and do not store your computer's address.")
KNOWN = N_(
    "The link that brought you here contains a code for you. It is kept apart from your answers, and used only to "
    "pay you and to make sure that everybody takes part only once."
)
PUBLISHED = N_("The answers may be published, under a random code.")
VOLUNTARY = N_(
    "Taking part is voluntary. You can stop at any time with “Stop taking part”, after which your answers are not "
    "counted, or by closing the page."
)
DELETABLE = N_("You will be shown a code with which you can have everything that is stored about you deleted.")
ANSWERS_KEPT = N_(
    "You will be shown a code with which you can have everything that could identify you deleted; your answers are "
    "kept."
)
AGREEMENT = N_("By pressing the button you confirm that you are at least 18 years old and agree to take part.")


def consent(
    language: str = SOURCE, knows_people: bool = False, two_buttons: bool = True, keeps_answers: bool = False
) -> str:
    """The standard consent.

    knows_people: by a code of theirs. two_buttons: each pair has one question of two answers. keeps_answers: a deletion
    does.
    """
    stored = (STORED, NO_NAME, *([KNOWN] if knows_people else []), PUBLISHED)
    voluntary = (VOLUNTARY, ANSWERS_KEPT if keeps_answers else DELETABLE)
    paragraphs = ((WHAT if two_buttons else WHAT_BY_BUTTONS,), stored, voluntary, (AGREEMENT,))
    translate = catalog(language).gettext
    return "\n\n".join(" ".join(map(translate, sentences)) for sentences in paragraphs)
