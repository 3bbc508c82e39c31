"""Words replaced by a masked language model: which, by what, and by the same probabilities as in
PyTorch."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from kd_jax.experiments.transfer_sets.masked_words import MaskedWords

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = ["good", "bad", "film", "story", "dog", "a", "the"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "un", "##real", "##s", "."]
TEXT = "a good unreal film ."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT with random weights and word pieces, saved as Hugging Face saves it."""
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        attn_implementation="eager",
    )
    model = transformers.BertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # Biases would make the same words likely everywhere.
                parameter.add_(torch.randn_like(parameter))
    model.eval().save_pretrained(path)
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def load(folder, candidates=3):
    return MaskedWords.load(str(folder), candidates=candidates, max_length=16)


def likeliest_in_pytorch(folder, position, count, *, masked=True):
    """The words that PyTorch finds likeliest at a position of TEXT, which is masked or not."""
    model = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids
    ids[position] = 4 if masked else ids[position]
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0, position].numpy()
    known = sorted([*WORDS, "un"], key=lambda word: -scores[PIECES.index(word)])
    return set(known[:count])


def test_each_word_becomes_one_of_pytorch_s_likeliest(folder):
    """Tokens: [CLS] a good un ##real film . [SEP]; only a, good and film are words of one piece."""
    found = {
        tuple(load(folder).augment([TEXT], replace=1.0, rng=np.random.default_rng(s))[0].split())
        for s in range(40)
    }
    assert {each[2] for each in found} == {"unreal"}
    assert {each[4] for each in found} == {"."}
    shown = {
        position: likeliest_in_pytorch(folder, position, 3, masked=False) for position in (1, 2, 5)
    }
    assert any(shown[position] != likeliest_in_pytorch(folder, position, 3) for position in shown)
    for word, position in ((0, 1), (1, 2), (3, 5)):
        assert {each[word] for each in found} == likeliest_in_pytorch(folder, position, 3)


def test_texts_beside_others_and_of_any_number_come_out_as_alone(folder):
    language = load(folder, candidates=1)
    texts = [TEXT, "the dog", "", "a story of the dog . " * 3] * 60
    together = language.augment(texts, replace=1.0, rng=np.random.default_rng(0))
    alone = [
        language.augment([text], replace=1.0, rng=np.random.default_rng(0))[0] for text in texts[:4]
    ]
    assert together == alone * 60


def test_replacement_is_by_probability_and_the_text_around_it_stays(folder):
    texts = ["the  dog, the\tdog"] * 500
    changed = load(folder).augment(texts, replace=0.4, rng=np.random.default_rng(0))
    assert load(folder).augment(texts, replace=0.0, rng=np.random.default_rng(0)) == texts
    assert all(len(text.split("  ")) == 2 and "\t" in text and "," in text for text in changed)
    share = np.mean([text != "the  dog, the\tdog" for text in changed])
    assert 0.5 < share < 1 - 0.6**4 + 0.05


@pytest.mark.parametrize("candidates", [0, 9])
def test_a_number_of_candidates_that_there_can_t_be_is_refused(folder, candidates):
    with pytest.raises(ValueError, match="candidates must be from 1 to the 8 words"):
        load(folder, candidates)


def test_a_tokenizer_without_a_mask_is_refused(folder, tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "a": 1}, unk_token="[PAD]"))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"neither \[MASK\] nor <mask>"):
        load(tmp_path)
