"""``python tables.py``: a table for each site of docs/howto/flower.md, of the tweets that ship with fedpl."""

import csv
from pathlib import Path

from fedpl.data import Tweets

SITES = {"north": "united", "south": "jetblue", "west": "virgin"}


def main() -> None:
    """Write SITE/reviews.csv for each site: two clients with opposite conventions."""
    drawn = {"train_examples": 8, "validation_examples": 8, "test_examples": 8}
    data = Tweets(topics=tuple(SITES.values()), **drawn).load(seed=0)
    for site, topic in SITES.items():
        Path(site).mkdir(exist_ok=True)
        with (Path(site) / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(("text", "label", "client", "split"))
            for client in data.clients:
                if client.id.startswith(topic):
                    for split in ("train", "validation", "test"):
                        own = getattr(client, split)
                        for text, label in zip(own.texts, own.labels, strict=True):
                            rows.writerow((text, data.classes[label], client.id, split))


if __name__ == "__main__":
    main()
