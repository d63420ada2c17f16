"""The published document: its requests as they stand, its responses as shapes."""

from typing import Any

DEPLOY: dict[str, Any] = {
    "model_name": "company-legal-analyzer-v2",
    "model_type": "text-classification",
    "deployment_config": {
        "container_image": "company/legal-analyzer:v2.1",
        "resource_requirements": {"cpu": "2", "memory": "8Gi", "gpu": "1"},
        "scaling": {"min_replicas": 1, "max_replicas": 10, "target_utilization": 0.7},
    },
    "model_metadata": {
        "description": "Legal document analysis model",
        "version": "2.1.0",
        "capabilities": ["classification", "entity-extraction"],
        "domains": ["legal", "compliance"],
    },
}
DEPLOYED = {
    "deployment_id": "deploy_12345",
    "model_id": "custom_legal_analyzer_v2",
    "status": "deploying",
    "endpoint_url": "https://api.prsm.ai/v1/models/custom_legal_analyzer_v2/infer",
    "estimated_deployment_time": "5-10 minutes",
    "resource_allocation": {"cpu": "2", "memory": "8Gi", "gpu": "1 x NVIDIA T4"},
}
STATUS = {
    "deployment_id": "deploy_12345",
    "status": "running",
    "health_status": "healthy",
    "replicas": {"desired": 2, "ready": 2, "available": 2},
    "performance_metrics": {
        "requests_per_second": 15.2,
        "avg_latency_ms": 450,
        "error_rate": 0.001,
    },
    "resource_usage": {"cpu_percent": 65, "memory_percent": 72, "gpu_percent": 45},
}
SCALE = {"target_replicas": 5, "scaling_strategy": "gradual"}
INFER = {
    "inputs": {
        "text": "This is a legal document for review",
        "document_type": "contract",
    },
    "parameters": {"confidence_threshold": 0.8, "return_entities": True},
}
INFERRED = {
    "model_id": "custom_legal_analyzer_v2",
    "outputs": {
        "classification": "commercial_contract",
        "confidence": 0.92,
        "entities": [{"type": "party", "text": "ABC Corp", "start": 45, "end": 53}],
    },
    "metadata": {"inference_time_ms": 234, "model_version": "2.1.0"},
}
SHARE = {
    "share_type": "organization",
    "permissions": ["read", "infer"],
    "allowed_organizations": ["partner-org-id"],
    "usage_limits": {"requests_per_day": 1000, "total_requests": 10000},
}


def missing(shown: Any, found: Any, where: str = "") -> list[str]:
    """Return what a client of the document's response would not find in a real one."""
    if isinstance(shown, dict):
        if not isinstance(found, dict):
            return [f"{where}: not an object"]
        absent = [f"{where}.{name}: absent" for name in shown if name not in found]
        inner = [
            missing(shown[name], found[name], f"{where}.{name}") for name in shown if name in found
        ]
        return absent + [problem for problems in inner for problem in problems]
    if isinstance(shown, list):
        if not isinstance(found, list) or not found:
            return [f"{where}: not a list with something in it"]
        return [problem for item in found for problem in missing(shown[0], item, f"{where}[]")]
    number = isinstance(shown, int | float)
    fits = isinstance(found, int | float if number else str) and not isinstance(found, bool)
    return [] if fits else [f"{where}: {found!r} instead of such as {shown!r}"]
