"""TOML text → a frozen Config, or every problem in it at once, with file and line."""

from gateway.config.conditions import All, AnyOf, Condition, Not, Test
from gateway.config.files import Content, Image
from gateway.config.gateway_file import GatewayFile
from gateway.config.load import Config, load, load_gateway, load_rules
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
from gateway.config.values import Listener, Server

__all__ = [
    "Action",
    "Agent",
    "All",
    "AnyOf",
    "AutoReply",
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
    "load",
    "load_gateway",
    "load_rules",
]
