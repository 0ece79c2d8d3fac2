"""TOML text → a frozen Config, or every problem in it at once, with file and line."""

from gateway.config.changes import Changed, Changes, diff, inbound_settings, outbound_settings
from gateway.config.conditions import All, AnyOf, Condition, Not, Test
from gateway.config.files import Content, Image
from gateway.config.gateway_file import GatewayFile
from gateway.config.load import Config, check, load, load_gateway, load_rules, without_rules
from gateway.config.rules_file import (
    Action,
    Agent,
    AutoReply,
    Hours,
    Pace,
    Rule,
    RulesFile,
    Signature,
    Spam,
    Template,
    Touchpoint,
    Watch,
)
from gateway.config.secrets import SecretRef
from gateway.config.snapshot import load_snapshot, snapshot
from gateway.config.values import Listener, Server

__all__ = [
    "Action",
    "Agent",
    "All",
    "AnyOf",
    "AutoReply",
    "Changed",
    "Changes",
    "Condition",
    "Config",
    "Content",
    "GatewayFile",
    "Hours",
    "Image",
    "Listener",
    "Not",
    "Pace",
    "Rule",
    "RulesFile",
    "SecretRef",
    "Server",
    "Signature",
    "Spam",
    "Template",
    "Test",
    "Touchpoint",
    "Watch",
    "check",
    "diff",
    "inbound_settings",
    "load",
    "load_gateway",
    "load_rules",
    "load_snapshot",
    "outbound_settings",
    "snapshot",
    "without_rules",
]
