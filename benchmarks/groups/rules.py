"""The server rules that are compared: one choice changed at a time, and their combinations."""

from fedpl.server import (
    Aggregator,
    Agreement,
    CentredCosine,
    Clusters,
    CorrectedCosine,
    Cosine,
    FactorWise,
    FedBip,
    Groups,
    InnerProduct,
    Local,
    SignAgreement,
    Softmax,
    Subject,
    TrueGroups,
    Uniform,
    Wiener,
)

CLIP = FedBip(negatives="clip")
AVERAGED = Subject(average="similarity")
PRODUCTS = Subject(average="products")
HEAD = Subject(average="similarity", space="head")
PRODUCT = Subject(average="products", space="product")
HEADS = Subject(average="products", space="head")
CENTRED = Subject(average="products", space="head", centred=True)
ANEW = Clusters(keep=False, min_silhouette=0.2)
NORM = FactorWise(match_norm=True)

RULES: dict[str, Aggregator] = {
    "local only": Aggregator(weighting=Local()),
    "federated average": Aggregator(weighting=Uniform()),
    "true groups": Aggregator(weighting=TrueGroups()),
    "FedBip": Aggregator(),
    "FedBip-L": Aggregator(granularity="block"),
    # weighting
    "clipped": Aggregator(weighting=CLIP),
    "clipped, per block": Aggregator(granularity="block", weighting=CLIP),
    # averaging over rounds
    "averaged cosines, clipped": Aggregator(AVERAGED, weighting=CLIP),
    "averaged cosines, clipped, per block": Aggregator(AVERAGED, "block", weighting=CLIP),
    "averaged products, clipped": Aggregator(PRODUCTS, weighting=CLIP),
    "cumulative, clipped": Aggregator(Subject("cumulative"), weighting=CLIP),
    "averaged vectors, clipped": Aggregator(Subject("averaged"), weighting=CLIP),
    # space
    "averaged, product space, clipped": Aggregator(
        Subject(average="similarity", space="product"), weighting=CLIP
    ),
    "averaged, B only, clipped": Aggregator(
        Subject(average="similarity", space="lora_B", head=False), weighting=CLIP
    ),
    "averaged, head only, clipped": Aggregator(HEAD, weighting=CLIP),
    # similarity
    "averaged, signs, clipped": Aggregator(AVERAGED, similarity=SignAgreement(), weighting=CLIP),
    "averaged, centred, softmax 0.1": Aggregator(
        AVERAGED, similarity=CentredCosine(), weighting=Softmax(0.1)
    ),
    "averaged, softmax 0.1": Aggregator(AVERAGED, weighting=Softmax(0.1)),
    "averaged, softmax 0.05": Aggregator(AVERAGED, weighting=Softmax(0.05)),
    "head only, softmax 0.1": Aggregator(HEAD, weighting=Softmax(0.1)),
    "corrected, clipped": Aggregator(PRODUCTS, similarity=CorrectedCosine(), weighting=CLIP),
    "corrected, rank 2, clipped": Aggregator(PRODUCTS, similarity=CorrectedCosine(2), weighting=CLIP),
    "corrected, softmax 0.2": Aggregator(PRODUCTS, similarity=CorrectedCosine(), weighting=Softmax(0.2)),
    "corrected, rank 2, per block, clipped": Aggregator(
        PRODUCTS, "block", similarity=CorrectedCosine(2), weighting=CLIP
    ),
    # noise correction in the weights
    "Wiener": Aggregator(PRODUCTS, similarity=InnerProduct(), weighting=Wiener()),
    "Wiener, rank 2": Aggregator(PRODUCTS, similarity=InnerProduct(), weighting=Wiener(rank=2)),
    "Wiener on averaged cosines": Aggregator(AVERAGED, similarity=Cosine(), weighting=Wiener()),
    "Wiener, per block": Aggregator(PRODUCTS, "block", similarity=InnerProduct(), weighting=Wiener()),
    "Wiener, own length": Aggregator(PRODUCTS, similarity=InnerProduct(), weighting=Wiener(), combine=NORM),
    # groups found
    "clusters, found anew": Aggregator(AVERAGED, weighting=Clusters(keep=False)),
    "clusters, corrected": Aggregator(PRODUCTS, similarity=CorrectedCosine(), weighting=ANEW),
    "clusters, corrected, product space": Aggregator(PRODUCT, similarity=CorrectedCosine(), weighting=ANEW),
    "clusters, corrected, head": Aggregator(HEADS, similarity=CorrectedCosine(), weighting=ANEW),
    # what FedBip-G would be without one of its parts
    "clusters, corrected, head, this round": Aggregator(
        Subject(space="head"),
        similarity=CorrectedCosine(),
        weighting=ANEW,
    ),
    "clusters, head": Aggregator(HEADS, weighting=ANEW),
    "clusters, corrected, head, kept": Aggregator(
        HEADS, similarity=CorrectedCosine(), weighting=Clusters(min_silhouette=0.2)
    ),
    "clusters, corrected, head, at least two": Aggregator(
        HEADS, similarity=CorrectedCosine(), weighting=Clusters(keep=False, min_silhouette=-1.0)
    ),
    # corrected in other spaces
    "corrected, product space, clipped": Aggregator(PRODUCT, similarity=CorrectedCosine(), weighting=CLIP),
    "corrected, head, clipped": Aggregator(HEADS, similarity=CorrectedCosine(), weighting=CLIP),
    "corrected, product space, softmax 0.2": Aggregator(
        PRODUCT, similarity=CorrectedCosine(), weighting=Softmax(0.2)
    ),
    "Wiener, product space": Aggregator(PRODUCT, similarity=InnerProduct(), weighting=Wiener()),
    # what clients report of halves of their examples
    "agreement": Aggregator(CENTRED, weighting=Agreement()),
    "agreement, whole adapters": Aggregator(PRODUCTS, weighting=Agreement()),
    "agreement, heads as they are": Aggregator(HEADS, weighting=Agreement()),
    # a tested answer
    "tested": Aggregator(PRODUCTS, weighting=Groups()),
    "tested, head": Aggregator(HEADS, weighting=Groups()),
    "tested, nothing individual": Aggregator(PRODUCTS, weighting=Groups(individual=0.0)),
    "tested, individual 0.15": Aggregator(PRODUCTS, weighting=Groups(individual=0.15)),
}
