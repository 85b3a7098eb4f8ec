from collections import Counter

import pytest

from fedpl.data import AIRLINES, FederatedData, Tweets
from fedpl.data.duplicates import near_duplicate_groups
from fedpl.errors import UserError

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data() -> FederatedData:
    return Tweets().load(0)


def test_six_airlines_times_two_conventions(data: FederatedData) -> None:
    assert data.ids == tuple(f"{airline}-{group}" for airline in AIRLINES for group in "ab")
    assert data.classes == ("negative", "positive")
    for client in data.clients:
        assert [len(getattr(client, split)) for split in SPLITS] == [32, 32, 80]
        assert client.group == client.id[-1]


def test_every_split_is_balanced(data: FederatedData) -> None:
    for client in data.clients:
        for split in SPLITS:
            counts = Counter(getattr(client, split).labels)
            assert counts[0] == counts[1]


def test_no_tweet_nor_near_duplicate_is_in_two_places(data: FederatedData) -> None:
    texts = [text for client in data.clients for split in SPLITS for text in getattr(client, split).texts]
    assert len(set(texts)) == len(texts) == 12 * 144
    assert len(set(near_duplicate_groups(texts).tolist())) == len(texts)


def test_the_second_convention_swaps_the_classes() -> None:
    """With the tweets of a topic dealt once to each convention, only the labels' meaning differs."""
    topic = Tweets(topics=("united",), train_examples=4, validation_examples=2, test_examples=2)
    first, second = topic.load(0).clients
    natural = Tweets(topics=("united",), conventions=1, train_examples=4).load(0).clients[0]
    assert first.train == natural.train
    assert first.train.labels == (0, 1, 0, 1)
    assert second.train.labels == (1, 0, 1, 0)


def test_the_seed_decides_the_splits(data: FederatedData) -> None:
    assert Tweets().load(0) == data
    assert Tweets().load(1) != data


def test_a_client_s_tweets_name_its_airline_alone(data: FederatedData) -> None:
    handles = ("@united", "@southwestair", "@jetblue", "@usairways", "@americanair", "@virginamerica")
    for client in data.clients:
        own = handles[AIRLINES.index(client.id[:-2])]
        for text in client.train.texts:
            named = {handle for handle in handles if handle in text.lower()}
            assert named == {own}


def test_too_many_examples_for_a_small_topic() -> None:
    with pytest.raises(UserError, match="topic 'virgin' has 73 tweets"):
        Tweets(topics=("virgin",), train_examples=200).load(0)


def test_settings_are_checked_together() -> None:
    wrong = Tweets(topics=("nowhere",), conventions=3, train_examples=3).problems()
    assert [line.split(":")[0] for line in wrong] == [
        "data.topics",
        "data.conventions",
        "data.train_examples",
    ]


def test_topics_of_the_natural_split() -> None:
    topics = ("coachella", "deflategate", "apple", "selfdriving")
    natural = Tweets(topics=topics, conventions=1).load(0)
    assert natural.ids == topics
    assert all(len(client.test) == 80 for client in natural.clients)
