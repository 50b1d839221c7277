from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .systems.recogniser import EmotionRecogniser

__version__ = "0.1.0"


def load(
    folder: str,  # what `zsemo train` wrote
    device: str = "auto",  # "auto", "cpu", "cuda", …
) -> "EmotionRecogniser":  # ready to predict
    "A recogniser from its folder: `zsemo_kit.systems.recogniser.EmotionRecogniser.load`."
    from .systems.recogniser import EmotionRecogniser
    return EmotionRecogniser.load(folder, device)
