"""What the settings say of every run reaches its session."""

from kaption.adapters.settings import Settings
from kaption.domain.run.config import SessionConfig
from kaption_gpu.bootstrap import session_config


def test_each_setting_of_a_run_is_passed_on() -> None:
    settings = Settings(
        redaction=("EMAIL_ADDRESS",),
        beam_size=3,
        prompt_seconds=4,
        partial_step_seconds=0.7,
        idle_final_seconds=11,
        idle_close_seconds=22,
        ahead_seconds=33,
    )
    assert session_config(settings) == SessionConfig(
        redaction=("EMAIL_ADDRESS",),
        beam_size=3,
        prompt_seconds=4,
        partial_step=0.7,
        idle_final=11,
        idle_close=22,
        ahead=33,
    )
