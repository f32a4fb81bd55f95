"""What several test files of tables share."""

import pytest

from de_core.train import Trainer


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C in every training, after its third step."""
    one = Trainer._one

    def stop(self, *args):
        if self.step == 3:
            raise KeyboardInterrupt
        return one(self, *args)

    monkeypatch.setattr(Trainer, "_one", stop)
