from prsm_sdk import PRSMClient

client = PRSMClient(api_key="your-api-key")

# Deploy custom model
deployment = await client.custom_models.deploy(
    model_name="legal-analyzer-v2",
    container_image="company/legal-analyzer:v2.1",
    resource_requirements={
        "cpu": "2",
        "memory": "8Gi",
        "gpu": "1"
    }
)

print(f"Deployment ID: {deployment.deployment_id}")

# Check deployment status
status = await client.custom_models.get_deployment_status(
    deployment.deployment_id
)
print(f"Status: {status.status}")

# Use deployed model
result = await client.models.infer(
    model_id="custom_legal_analyzer_v2",
    inputs={"text": "Contract text here"}
)
