from __future__ import annotations

from service.server.variables import describe_odd_variables


def test_mistyped_variables_are_noticed_and_other_peoples_are_not() -> None:
    environment = {
        "UNIHEAD_PROT": "1",
        "UNIHEAD_PORT": "1",
        "UNIHEAD_DATA": "x",
        "UNIHEAD_CACHE_DIR": "off",
        "UNIHEAD_ZZZZ": "",
        "PATH": "x",
    }
    port, other = describe_odd_variables(environment)
    assert port == "the environment sets UNIHEAD_PROT, which is no setting; did you mean UNIHEAD_PORT?"
    assert "UNIHEAD_ZZZZ" in other


def test_the_variable_of_those_who_ask_is_not_mistaken_for_the_key_file() -> None:
    (sentence,) = describe_odd_variables({"UNIHEAD_KEY": "uh_secret"})
    assert sentence == "the environment sets UNIHEAD_KEY, which is no setting; did you mean UNIHEAD_KEYS?"


SERVICE_OF_KUBERNETES = {
    "UNIHEAD_SERVICE_HOST": "10.0.0.1",
    "UNIHEAD_SERVICE_PORT": "80",
    "UNIHEAD_SERVICE_PORT_HTTP": "80",
    "UNIHEAD_PORT": "tcp://10.0.0.1:80",
    "UNIHEAD_PORT_80_TCP": "tcp://10.0.0.1:80",
    "UNIHEAD_PORT_80_TCP_PROTO": "tcp",
    "UNIHEAD_PORT_80_TCP_PORT": "80",
    "UNIHEAD_PORT_80_TCP_ADDR": "10.0.0.1",
}


def test_what_kubernetes_sets_for_a_service_is_one_warning() -> None:
    links = {name.replace("UNIHEAD", "UNIHEAD_METRICS"): value for name, value in SERVICE_OF_KUBERNETES.items()}
    first, second = describe_odd_variables({**SERVICE_OF_KUBERNETES, **links})
    assert first == (
        "the environment sets UNIHEAD_METRICS_PORT to tcp://10.0.0.1:80, as Kubernetes does for a Service of that "
        "name; it is no setting and the default counts: say `enableServiceLinks: false` in the pod's spec"
    )
    assert second.startswith("the environment sets UNIHEAD_PORT to tcp://10.0.0.1:80")
    assert len(describe_odd_variables({**SERVICE_OF_KUBERNETES, "UNIHEAD_PORT": "8000"})) > 1  # then they are odd
