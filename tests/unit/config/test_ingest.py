"""What an ingest takes of a run's settings: those of the cluster."""

import pytest

from ray_ns.config.ingest import cluster
from ray_ns.errors import InputError


def test_an_ingest_takes_settings_of_the_cluster_alone() -> None:
    found = cluster(['cluster.decode_on={ray-ns/decode: "true"}', "cluster.timeout_seconds=60.0"])
    assert (found.decode_on, found.timeout_seconds) == ({"ray-ns/decode": "true"}, 60.0)
    with pytest.raises(InputError, match=r"'label.actors=2': not a setting of an ingest, which takes cluster\.\*"):
        cluster(["label.actors=2"])
    with pytest.raises(InputError, match=r"cluster.decode: unknown key"):
        cluster(["cluster.decode=2"])
