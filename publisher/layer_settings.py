"""From settings to what the unpacking of layers takes."""

from __future__ import annotations

from mirror.config.publish import PublishSettings
from publisher.layers.limits import LayerLimits
from publisher.layers.permissions import PermissionPolicy
from publisher.layers.policy import LayerPolicy


def layer_limits(publish: PublishSettings) -> LayerLimits:
    """Bounds of one layer."""
    return LayerLimits(**publish.limits.model_dump())


def layer_policy(publish: PublishSettings) -> LayerPolicy:
    """What is kept of it."""
    return LayerPolicy(setuid=publish.setuid == "keep", capabilities=publish.capabilities == "keep")


def permission_policy(publish: PublishSettings) -> PermissionPolicy:
    """What flat roots let their readers do."""
    return PermissionPolicy(
        owner_access=publish.permissions != "image",
        world_readable=publish.permissions == "a+rX",
        setuid=publish.setuid == "keep",
    )
