import numpy as np
import pytest

from interestkit.projection import project


@pytest.fixture(scope="module")
def clusters():
    """Sixty points around three directions, of other lengths."""
    rng = np.random.default_rng(0)
    points = np.repeat(np.eye(3, 8), 20, axis=0) + 0.1 * rng.normal(size=(60, 8))
    return points * rng.uniform(0.5, 5, size=(60, 1))


def test_the_nearest_point_is_of_the_same_cluster(clusters):
    places = project(clusters)
    far = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(far, np.inf)
    same = far.argmin(axis=1) // 20 == np.arange(60) // 20
    assert same.mean() > 0.9
    assert np.abs(places).max() == pytest.approx(1)


def test_few_points_and_points_without_direction_have_a_place(clusters):
    assert project(clusters[:3]).tolist() == [[-1, 0], [0, 0], [1, 0]]
    assert project(clusters[:0]).shape == (0, 2)
    assert np.isfinite(project(np.concatenate([clusters, np.zeros((5, 8))]))).all()
