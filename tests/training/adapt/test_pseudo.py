"""Thresholds, fusion and coverage of pseudo labels, against brute force over all pixels."""

import math

import numpy as np
import pytest
import torch

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.pseudo import BINS, ConfidenceHistogram, Coverage, fuse, keep_confident, thresholds

C = 4


def pixels(count=20_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, C - 1, (count,), generator=generator)  # the last class is never predicted
    confidence = torch.rand(count, generator=generator) ** (1.0 / (1.0 + label))
    return label, confidence


def histogram_of(label, confidence):
    histogram = ConfidenceHistogram(C)
    histogram.add(label, confidence)
    return histogram


@pytest.mark.parametrize("q", [0.0, 0.29, 0.5, 0.66, 0.95, 1.0])
def test_quantiles_are_those_of_sorted_confidences_rounded_down_to_a_bin(q):
    label, confidence = pixels()
    found = histogram_of(label, confidence).quantile(q)
    for index in range(C - 1):
        ordered = np.sort(confidence[label == index].double().numpy())
        exact = ordered[min(math.floor(q * len(ordered) + 1e-6), len(ordered) - 1)]
        assert found[index] == pytest.approx(math.floor(exact * BINS) / BINS, abs=1e-12)
        assert found[index] <= exact < found[index] + 1 / BINS
    assert np.isnan(found[C - 1])


def test_the_median_of_four_pixels_keeps_two():
    label, confidence = torch.zeros(4, dtype=torch.long), torch.tensor([0.2, 0.4, 0.6, 0.8])
    limit = histogram_of(label, confidence).quantile(0.5)
    assert limit[0] == pytest.approx(0.6)
    assert keep_confident(label, confidence, limit).tolist() == [255, 255, 0, 0]


def test_a_share_that_floating_point_makes_smaller_counts_as_typed():
    label, confidence = torch.zeros(100, dtype=torch.long), torch.arange(100) / 100 + 0.0055
    assert 0.29 * 100 < 29
    assert histogram_of(label, confidence).quantile(0.29)[0] == pytest.approx(0.295)


def test_at_least_the_share_above_the_quantile_is_kept():
    label, confidence = pixels()
    limits = histogram_of(label, confidence).quantile(0.66)
    kept = keep_confident(label, confidence, limits)
    for index in range(C - 1):
        of_class = label == index
        assert 0.34 <= (kept[of_class] == index).float().mean() <= 0.34 + 0.01


def test_confidences_at_the_edges_land_in_their_own_bin():
    histogram = histogram_of(torch.zeros(4, dtype=torch.long), torch.tensor([0.0, 0.9, 1.0, 0.25]))
    # float32's 0.9 is a little less than 0.9
    assert np.flatnonzero(histogram.counts[0]).tolist() == [0, 250, 899, BINS - 1]


def test_unlabelled_pixels_are_not_counted():
    histogram = histogram_of(torch.tensor([0, 255, 2]), torch.tensor([0.5, 0.9, 0.7]))
    assert histogram.predicted.tolist() == [1, 0, 1, 0]


def test_histograms_of_parts_merge_into_that_of_the_whole():
    label, confidence = pixels()
    first, second = histogram_of(label[:777], confidence[:777]), histogram_of(label[777:], confidence[777:])
    first.merge(second)
    np.testing.assert_array_equal(first.counts, histogram_of(label, confidence).counts)
    assert first.counts.dtype == np.int64 and first.counts.shape == (C, BINS)


def test_fixed_threshold_is_the_same_for_all_classes():
    assert thresholds(histogram_of(*pixels()), "threshold", threshold=0.8).tolist() == [0.8] * C


def test_class_balanced_thresholds_are_medians_capped_and_the_cap_for_an_absent_class():
    histogram = histogram_of(*pixels())
    medians = histogram.quantile(0.5)
    found = thresholds(histogram, "class-balanced", quantile=0.5, cap=0.75)
    assert medians[0] < 0.75 < medians[2]
    assert found.tolist() == [medians[0], medians[1], 0.75, 0.75]


def test_a_confidence_of_exactly_the_threshold_is_kept():
    label, confidence = torch.tensor([1, 1, 1]), torch.tensor([0.9, np.nextafter(np.float32(0.9), np.float32(0)), 0.95])
    assert keep_confident(label, confidence, np.full(C, 0.9)).tolist() == [1, 255, 1]


def test_keeping_leaves_labels_that_are_255_alone_and_keeps_the_dtype():
    label = torch.tensor([255, 2], dtype=torch.uint8)
    kept = keep_confident(label, torch.tensor([0.99, 0.99]), np.full(C, 0.9))
    assert kept.tolist() == [255, 2] and kept.dtype == torch.uint8


def maps(*outputs):
    """Outputs of one pixel each: ``{class: probability}``, the rest is not a winner."""
    made = []
    for output in outputs:
        probability = torch.zeros(1, C, 1, 1)
        for index, value in output.items():
            probability[0, index] = value
        made.append(probability)
    return made


def fused(how, *outputs):
    label, confidence = fuse(maps(*outputs), how)
    return int(label), round(float(confidence), 5)


def test_confidence_takes_the_most_confident_output():
    assert fused("confidence", {0: 0.5}, {1: 0.9}, {0: 0.6}) == (1, 0.9)


def test_confidence_takes_the_earlier_output_in_a_tie():
    assert fused("confidence", {2: 0.7}, {1: 0.7}, {0: 0.6}) == (2, 0.7)


def test_majority_takes_the_label_with_most_votes_with_its_best_confidence():
    assert fused("majority", {0: 0.5}, {1: 0.9}, {0: 0.6}) == (0, 0.6)


def test_majority_with_three_opinions_takes_the_most_confident():
    assert fused("majority", {0: 0.5}, {1: 0.6}, {2: 0.55}) == (1, 0.6)


def test_mean_takes_the_largest_mean_probability():
    assert fused("mean", {0: 0.5, 2: 0.4}, {1: 0.6, 2: 0.4}, {1: 0.1, 2: 0.9}) == (2, round(1.7 / 3, 5))


def test_fusion_of_random_maps_is_that_of_a_loop_over_pixels():
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn(2, C, 9, 7, generator=generator).mul(2).softmax(dim=1) for _ in range(3)]
    found = {how: fuse(outputs, how) for how in ("confidence", "majority", "mean")}
    for n in range(2):
        for y in range(9):
            for x in range(7):
                rows = [output[n, :, y, x].tolist() for output in outputs]
                votes = [(row.index(max(row)), max(row)) for row in rows]
                by_confidence = max(votes, key=lambda vote: vote[1])
                most = max(sum(v[0] == label for v in votes) for label in range(C))
                tied = [v for v in votes if sum(w[0] == v[0] for w in votes) == most]
                mean = np.mean(rows, axis=0)
                wanted = {
                    "confidence": by_confidence,
                    "majority": max(tied, key=lambda vote: vote[1]),
                    "mean": (int(mean.argmax()), mean.max()),
                }
                for how, (label, confidence) in wanted.items():
                    assert int(found[how][0][n, y, x]) == label, how
                    assert float(found[how][1][n, y, x]) == pytest.approx(confidence, rel=1e-6), how


def test_majority_of_two_outputs_is_confidence_and_one_output_needs_no_fusion():
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(1, C, 8, 8, generator=generator).softmax(dim=1) for _ in range(2))
    assert torch.equal(fuse([first, second], "majority")[0], fuse([first, second], "confidence")[0])
    assert all(torch.equal(fuse([first], how)[0], first.argmax(dim=1)) for how in ("confidence", "majority", "mean"))


def test_coverage_is_of_all_pixels_and_per_class():
    coverage = Coverage(predicted=np.array([10, 30, 0]), kept=np.array([5, 3, 0]))
    assert coverage.share == 0.2
    np.testing.assert_array_equal(coverage.per_class, [0.5, 0.1, np.nan])
    assert Coverage(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)).share == 0.0


def test_unknown_words_are_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="weighted"):
        fuse(maps({0: 1.0}), "weighted")
    with pytest.raises(ConfigError, match="best"):
        thresholds(ConfidenceHistogram(C), "best")
