from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .systems.recogniser import Recogniser

__version__ = "0.1.0"


def load(
    folder: str,  # what `zsemo train` wrote
    device: str = "auto",  # "auto", "cpu", "cuda", …
) -> "Recogniser":  # ready to predict
    "A recogniser from its folder: `zsemo_kit.systems.recogniser.Recogniser.load`."
    from .systems.recogniser import Recogniser
    return Recogniser.load(folder, device)
