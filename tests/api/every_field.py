"""Two deploy requests without a name that give every field a value, and no field the same one."""

SPEC = {
    "model_type": "own",
    "deployment_config": {
        "container_image": "company/legal-analyzer:v2.1",
        "resource_requirements": {"cpu": "3", "memory": "2Gi", "gpu": "0.5", "gpu_memory": "2Gi"},
        "scaling": {
            "min_replicas": 2,
            "max_replicas": 20,
            "target_utilization": 0.5,
            "scale_to_zero_after_seconds": 10.0,
        },
        "serving": {
            "protocol": "native",
            "port": 9000,
            "predict_path": "/predict",
            "health_path": "/alive",
            "startup_timeout_seconds": 30.0,
            "request_timeout_seconds": 31.0,
            "max_concurrency": 3,
            "queue_depth": 4,
        },
        "security": {
            "run_as_user": 1000,
            "writable_root": True,
            "egress": True,
            "runtime_class": "runsc",
        },
        "environment": {"A": "1"},
        "secrets": {"TOKEN": {"name": "token", "as": "environment"}},
        "command": ["run"],
        "args": ["fast"],
    },
    "model_metadata": {
        "description": "words",
        "version": "2.0.0",
        "capabilities": ["a"],
        "domains": ["b"],
    },
}
OTHER = {
    "model_type": "another",
    "deployment_config": {
        "container_image": "company/legal-analyzer:v3",
        "resource_requirements": {"cpu": "4", "memory": "3Gi", "gpu": "1", "gpu_memory": "1Gi"},
        "scaling": {
            "min_replicas": 3,
            "max_replicas": 21,
            "target_utilization": 0.6,
            "scale_to_zero_after_seconds": 11.0,
            "max_concurrency": 9,
        },
        "serving": {
            "protocol": "other",
            "port": 9001,
            "predict_path": "/p",
            "health_path": "/h",
            "startup_timeout_seconds": 40.0,
            "request_timeout_seconds": 41.0,
            "max_concurrency": 5,
            "queue_depth": 6,
        },
        "security": {
            "run_as_user": 1001,
            "writable_root": False,
            "egress": False,
            "runtime_class": "kata",
        },
        "environment": {"A": "2"},
        "secrets": {"TOKEN": {"name": "other"}},
        "command": ["walk"],
        "args": ["slow"],
    },
    "model_metadata": {
        "description": "other words",
        "version": "3.0.0",
        "capabilities": ["c"],
        "domains": ["d"],
    },
}
