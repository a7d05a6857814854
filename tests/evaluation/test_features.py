"""The features of student and teacher, side by side."""

import torch

from imdn_kd.distill.teacher import Teacher
from imdn_kd.evaluation.features import report_features
from imdn_kd.registry import ARCHS


def network(**keywords):
    torch.manual_seed(0)
    return ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, **keywords})


def rows(report):
    return {row[0]: row for row in report.tables[0].rows}


def test_blocks_are_paired_in_proportion_and_shown_with_their_ranges():
    student, teacher = network(num_block=2), network(num_block=6)
    found = rows(report_features(student, [Teacher(teacher)]))

    assert found["block.1"][1:3] == ("IMDB1", "8x64x96")
    assert [found[f"block.{k}"][4] for k in (1, 2)] == ["IMDB3", "IMDB6"]
    low, _, high = found["head"][3].partition(" to ")
    assert float(low) < 0 < float(high)


def test_each_teacher_has_a_table_and_sees_images_in_its_own_terms():
    teachers = [Teacher(network(num_block=3)), Teacher(network(num_block=3), value_range=255.0)]
    report = report_features(network(num_block=3), teachers)
    ranges = [next(row[6] for row in table.rows if row[0] == "head") for table in report.tables]
    highs = [float(each.split(" to ")[1]) for each in ranges]
    assert highs[1] > 50 * highs[0]


def test_student_and_teachers_are_left_as_they_were():
    student = network(num_block=2).train()
    report_features(student, [Teacher(network(num_block=2))])
    assert student.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_networks_of_one_channel():
    found = rows(report_features(network(num_block=2, num_in_ch=1)))
    assert found["sr"][2] == "1x128x192"
