"""The gateway against real HTTP servers on loopback."""

from prsmd.gateway.infer import Gateway, Inference

from tests.gateway.backends import Backend, route, table


async def test_an_inference_reaches_the_container_and_its_outputs_come_back(gateway: Gateway):
    async with Backend() as backend:
        gateway.publish(table(route(backend.target)))
        found = gateway.find("acme", "custom_a")
        assert found is not None
        result = await gateway.infer(
            found, Inference(inputs={"text": "hi"}, parameters={"k": 1}, request_id="req-1")
        )
        assert result.outputs == {"replica": "r1"}
        assert (result.replica_id, result.model_version) == ("r1", "1.2.3")
        assert result.inference_time_ms > 0
        assert backend.bodies == [{"inputs": {"text": "hi"}, "parameters": {"k": 1}}]
        assert backend.requests[0].headers["X-Request-ID"] == "req-1"
