import os
import select
import signal

import pytest

from imdn_kd.cli.interrupts import Interrupts

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals")


@pytest.mark.parametrize("closed", [True, False])
def test_what_is_printed_after_sighup_neither_fails_nor_gets_lost(tmp_path, closed):
    """A terminal is closed, or stays and the signal is sent by hand; the report goes to a file."""
    import pty

    reader, writer = os.pipe()
    child, terminal = pty.fork()
    if child == 0:
        code = 1
        try:
            with Interrupts() as interrupts:
                try:
                    os.write(writer, b"ready")
                    select.select([], [], [], 30)
                except KeyboardInterrupt:
                    os.write(2, b"stopped")
                    (tmp_path / "report").write_text("done")
            code = interrupts.code
        finally:
            os._exit(code)
    assert os.read(reader, 5) == b"ready"
    if closed:
        os.close(terminal)
    else:
        os.kill(child, signal.SIGHUP)
        assert os.read(terminal, 20) == b"stopped"
        os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert (tmp_path / "report").read_text() == "done"


def test_outside_the_main_thread_signals_are_left_alone():
    from threading import Thread

    seen = []

    def enter():
        with Interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
