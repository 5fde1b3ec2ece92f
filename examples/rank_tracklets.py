"""Who is it? Rank a gallery of tracklets for every query with a trained network.

After `make demo`:

    python examples/rank_tracklets.py results/demo/train/scaled/seed1 \\
        resources/demo/data/case1_aerial_to_ground/query \\
        resources/demo/data/case1_aerial_to_ground/gallery
"""

import sys

from reid import TrackletEncoder


def main(run: str, queries: str, gallery: str) -> None:
    """Print the three most similar gallery folders of each query folder."""
    encoder = TrackletEncoder(run)
    query, candidates = encoder.encode(queries), encoder.encode(gallery)
    ranking = encoder.rank(query, candidates, top=3)
    for folder, row in zip(query.folders, ranking.index, strict=True):
        names = ", ".join(candidates.folders[place].name for place in row)
        print(f"{folder.name}: {names}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(f"usage: python {sys.argv[0]} RUN_FOLDER QUERY_FOLDER GALLERY_FOLDER")
    main(*sys.argv[1:])
