"""Where the commands find keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from minilambda.cli.options import BadOption, Options
from minilambda.errors import MinilambdaError

if TYPE_CHECKING:
    from minilambda.broker.access import BrokerKeys
    from minilambda.keys import PeerKeys


def state_folder(found: Options) -> Path:
    """The broker's state directory, whether it keeps its state there or not."""
    given = found.path("--state-dir", "")
    if given:
        return Path(given)
    import platformdirs  # noqa: PLC0415 - not needed where the directory is given

    return platformdirs.user_state_path("minilambda", appauthor=False) / "broker"


def own_folder(found: Options) -> Path:
    """Where one's own key files are."""
    from minilambda.keyfiles import user_folder  # noqa: PLC0415 - only where keys are used

    given = found.path("--keys", "")
    return Path(given) if given else user_folder()


def list_file(found: Options) -> Path:
    """The file with the keys that may talk to the broker."""
    from minilambda.broker.authorized import FILE  # noqa: PLC0415 - only where keys are used

    given = found.path("--keys", "")
    return (Path(given) if given else state_folder(found)) / FILE


def broker_keys(found: Options) -> BrokerKeys | None:
    """The keys of a broker; None where it uses none. Raises ``BadOption``."""
    source = found.path("--key", "")
    if not source:
        if found.given("--keys"):
            raise BadOption("--keys is of no use without --key, the broker's own key.")
        return None
    from minilambda.broker.access import BrokerKeys  # noqa: PLC0415 - only where keys are used
    from minilambda.curve import pair_of  # noqa: PLC0415
    from minilambda.keyfiles import read_secret  # noqa: PLC0415

    try:
        secret, _ = read_secret(source, own_folder(found))
    except MinilambdaError as error:
        raise BadOption(f"--key: {error}") from None
    return BrokerKeys(pair_of(secret), list_file(found))


def named_keys(found: Options) -> tuple[str | None, str | None]:
    """One's own key and the broker's, by name or path; None for what is not given."""
    return found.path("--key", "") or None, found.path("--server-key", "") or None


def peer_keys(found: Options) -> PeerKeys | None:
    """The keys of a worker; None where it uses none. Raises ``BadKey``."""
    key, server_key = named_keys(found)
    if key is None and server_key is None:
        return None
    from minilambda.curve import load_peer_keys  # noqa: PLC0415 - only where keys are used

    return load_peer_keys(key, server_key)
