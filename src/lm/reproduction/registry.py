"""The published results that `lm reproduce NAME` runs again.

CPU costs are those of two cores of an AMD EPYC with native bf16, GPU costs those of one H100.
"""

import difflib

from lm.errors import ConfigError
from lm.reproduction.row import Cost, Metric, Row, Stage

_EXAMPLES = "pytorch/examples, README of word_language_model of 2017 (then on the PTB)"
_AWD = "Merity, Keskar & Socher 2018, arXiv:1708.02182, tables 1 and 2"
# Averaging from the first step on, until validation stops improving.
_FINETUNE = ("trainer.averaging.nonmonotone=null", "trainer.patience=5")
_ZAREMBA = "Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329, table 1"
_MERITY = "Merity, Keskar & Socher 2018, arXiv:1803.08240, and the README of awd-lstm-lm"


def find(name: str) -> Row:
    """The row of that name.

    Raises:
        ConfigError: there is none; names the nearest.
    """
    if name in ROWS:
        return ROWS[name]
    close = difflib.get_close_matches(name, ROWS, n=1, cutoff=0.5)
    hint = f"; nearest: {close[0]}" if close else ""
    raise ConfigError(
        f"no published result named {name!r}{hint}", "`lm reproduce --list` shows them all."
    )


_LISTED = (
    Row(
        name="ptb_small",
        system="pytorch/examples LSTM 2x200, 6 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_small", published=117.61),),
        cpu=Cost(minutes=7, measured=True),
    ),
    Row(
        name="ptb_small_tied",
        system="pytorch/examples LSTM 2x200 tied, 6 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_small_tied", published=110.44),),
        cpu=Cost(minutes=7, measured=True),
    ),
    Row(
        name="ptb_small_tied_40",
        system="pytorch/examples LSTM 2x200 tied, 40 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(
            Stage(
                experiment="ptb_small_tied", overrides=("trainer.max_epochs=40",), published=87.17
            ),
        ),
        cpu=Cost(minutes=45),
    ),
    Row(
        name="ptb_medium_untied",
        system="pytorch/examples LSTM 2x650, 40 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_medium_untied", published=80.97),),
        cpu=Cost(minutes=170),
    ),
    Row(
        name="ptb_medium",
        system="pytorch/examples LSTM 2x650 tied, 40 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_medium", published=75.96),),
        cpu=Cost(minutes=165),
    ),
    Row(
        name="ptb_large_untied",
        system="pytorch/examples LSTM 2x1500, 40 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_large_untied", published=77.42),),
        cpu=Cost(minutes=600),
    ),
    Row(
        name="ptb_large",
        system="pytorch/examples LSTM 2x1500 tied, 40 epochs",
        data="ptb",
        source=_EXAMPLES,
        stages=(Stage(experiment="ptb_large", published=72.30),),
        cpu=Cost(minutes=580),
    ),
    Row(
        name="zaremba_small",
        system="Zaremba et al. LSTM 2x200, no dropout",
        data="ptb",
        source=_ZAREMBA,
        stages=(Stage(experiment="zaremba_small", published=114.5),),
        cpu=Cost(minutes=15),
        note="Their code tests the last weights, we the best on validation.",
    ),
    Row(
        name="zaremba_medium",
        system="Zaremba et al. LSTM 2x650",
        data="ptb",
        source=_ZAREMBA,
        stages=(Stage(experiment="zaremba_medium", published=82.7),),
        cpu=Cost(minutes=165),
        note="Their code tests the last weights, we the best on validation.",
    ),
    Row(
        name="zaremba_large",
        system="Zaremba et al. LSTM 2x1500",
        data="ptb",
        source=_ZAREMBA,
        stages=(Stage(experiment="zaremba_large", published=78.4),),
        cpu=Cost(minutes=820),
        note="Their code tests the last weights, we the best on validation.",
    ),
    Row(
        name="awd_lstm_ptb",
        system="Merity et al. AWD-LSTM 24M, NT-ASGD, finetuned",
        data="ptb",
        source=_AWD,
        stages=(
            Stage(name="train", experiment="awd_lstm_ptb", published=58.8),
            Stage(name="finetune", experiment="awd_lstm_ptb", overrides=_FINETUNE, published=57.3),
        ),
        cpu=Cost(minutes=7_000),
        note="Their finetuning starts again from the best weights at each plateau; ours ends.",
    ),
    Row(
        name="awd_lstm_wt2",
        system="Merity et al. AWD-LSTM 33M, NT-ASGD, finetuned",
        data="wikitext2",
        source=_AWD,
        stages=(
            Stage(name="train", experiment="awd_lstm_wt2"),
            Stage(name="finetune", experiment="awd_lstm_wt2", overrides=_FINETUNE, published=65.8),
        ),
        cpu=Cost(minutes=33_000),
        note="Their finetuning starts again from the best weights at each plateau; ours ends.",
    ),
    Row(
        name="mogrifier_ptb",
        system="Melis et al. Mogrifier LSTM 24M, 2 layers",
        data="ptb",
        source="Melis, Kocisky & Blunsom 2020, arXiv:1909.01792, table 1",
        stages=(Stage(experiment="mogrifier_ptb", published=50.1),),
        cpu=Cost(minutes=10_500),
        note="Their value has the softmax temperature tuned on validation.",
    ),
    Row(
        name="ptb_char",
        system="Merity et al. AWD-LSTM 3x1000, characters",
        data="ptb",
        source=_MERITY,
        stages=(Stage(experiment="ptb_char", published=1.175),),
        metric=Metric.bits_per_character,
        characters=442_423,
        cpu=Cost(minutes=10_000),
        note="Bits are divided by the characters of ptb.char.test.txt, which has no space at the"
        " ends of lines.",
    ),
    Row(
        name="enwik8",
        system="Merity et al. AWD-LSTM 3x1840, bytes",
        data="enwik8",
        source=_MERITY,
        stages=(Stage(experiment="enwik8", published=1.232),),
        metric=Metric.bits_per_byte,
        cpu=Cost(minutes=60_000),
    ),
    Row(
        name="torch_source",
        system="lm's default recipe, LSTM 512, 3 epochs",
        data="torch_source",
        source="lm, README and docs/default_recipe.md",
        stages=(Stage(published=1.478),),
        metric=Metric.bits_per_byte,
        tolerance=0.015,
        hashes={
            "train": "d085bf3fb56d8fc8d67e2a8aa3d85e5ef1c54bf90781271d08dd90ab169ed6b1",
            "valid": "a00dba731d676ea71f1f9b91c678e48d4986c5375b8c9faff90ffb973c41f84a",
            "test": "15cb9de53da74975da7885f4e98829d99df463f41426dcbba5d1ce48b2b9742e",
        },
        cpu=Cost(minutes=3.4, measured=True),
        note="The text is that of torch 2.13.0; other versions of torch have another.",
    ),
    Row(
        name="shakespeare",
        system="lm's default recipe without dropout, 1 epoch",
        data="shakespeare",
        source="lm, configs/experiment/shakespeare.yaml",
        stages=(Stage(experiment="shakespeare", published=1.976),),
        metric=Metric.bits_per_byte,
        tolerance=0.015,
        hashes={
            "train": "32095ed0fb7829d4965ea5583a96f16843b6d4f63b521f836d0335bf178d7404",
            "valid": "4eff8f165b92bc04df6654b85c1d452b5d460f2cd84559cb71b346cc9ae3cdf1",
            "test": "44afd02e9a343dc7d8e4bffd7b5384db48c52f3c8075d5cf092d26cd3ccc2c39",
        },
        cpu=Cost(minutes=2),
    ),
)

ROWS: dict[str, Row] = {row.name: row for row in _LISTED}
"""Name → row."""
