"""Deploy a model, wait until it runs, ask it, show what happened, remove it.

    python examples/sdk/deploy_and_ask.py prsmd/language-id:1 "Das ist ein Satz."

The daemon is the local one, or the one that PRSMD_URL and PRSMD_API_KEY name.
"""

import asyncio
import sys

from prsm_sdk import PRSMClient
from prsm_sdk.errors import ConflictError, DeploymentFailedError

NAME = "sdk-example"


async def main(image: str, text: str) -> int:
    async with PRSMClient() as client:
        try:
            deployment = await client.custom_models.deploy(
                model_name=NAME,
                container_image=image,
                resource_requirements={"cpu": "250m", "memory": "512Mi"},
            )
        except ConflictError as error:
            print(error)
            return 1
        try:
            await client.custom_models.wait_until_running(deployment.deployment_id)
            result = await client.models.infer(NAME, {"text": text})
            print(result.outputs)
        except DeploymentFailedError as error:
            print(error, *error.details["log_tail"], sep="\n")
            return 1
        finally:
            for event in await client.custom_models.events(deployment.deployment_id):
                print(event.at, event.reason, event.message)
            await client.custom_models.delete(NAME)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(*sys.argv[1:])))
