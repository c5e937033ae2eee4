"""A checkpoint is whole or not there, whatever the disk says."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from g2r_lightning.checkpoint_io import WholeCheckpoints, plugins_for
from g2r_lightning.errors import G2RError


@pytest.mark.skipif(sys.platform == "win32", reason="no limits for files")
def test_where_space_ends_the_old_checkpoint_stays(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(G2RError, match=r"last\.ckpt: cannot be written"):
            WholeCheckpoints().save_checkpoint({"state_dict": {"w": torch.ones(100_000)}}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [1, 1, 1]
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_strategies_with_a_form_of_their_own_keep_it():
    assert [len(plugins_for(None, name)) for name in (None, "auto", "ddp_spawn", "fsdp", "deepspeed")] == [
        1,
        1,
        1,
        0,
        0,
    ]
    one, other = WholeCheckpoints(), object()
    assert plugins_for(one, "ddp") == [one]
    assert plugins_for([other], None)[0] is other
