"""Lets Debian's azure-cli work with virtual machines and roles.

That package asks its compute SDK for a version that Debian's SDK does not have, and its authorization SDK for
what it has under another name, so every command about virtual machines or roles ends before it sends anything.
Python loads this file when it starts; where azure-cli then loads its table of versions, or its commands about
roles, and what it wants is missing, it gets what is there. Other programs, and an azure-cli that is whole, run
as ever.
"""

import importlib.machinery
import importlib.util
import os
import sys

TABLE = 'azure.cli.core.profiles._shared'
ROLES = 'azure.cli.command_modules.role.custom'
SDK = 'azure.mgmt.compute'
PRESENT = '2022-08-01'


class Mender:
    """Finds a module as Python would, and mends it once it is loaded."""

    def __init__(self, name, mend):
        self.name, self.mend = name, mend

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_mend(module):
            load(module)
            self.mend(module)

        spec.loader.exec_module = load_and_mend
        return spec


def mend_versions(table):
    sdk = importlib.util.find_spec(SDK)
    if sdk is None or not there(sdk, PRESENT):
        return
    versions = table.AZURE_API_PROFILES['latest'][table.ResourceType.MGMT_COMPUTE].profile
    for operations, version in versions.items():
        if not there(sdk, version):
            versions[operations] = PRESENT


def mend_roles(commands):
    make = commands._auth_client_factory

    def make_and_mend(*args, **kwargs):
        client = make(*args, **kwargs)
        for operations in (client.role_assignments, client.role_definitions):
            if not hasattr(operations, 'config'):
                type(operations).config = property(lambda self: self._config)
        return client

    commands._auth_client_factory = make_and_mend
    ask_directory = commands._graph_client_factory

    def ask_here(cli_ctx, **kwargs):
        # There is no directory to be asked for names, and az takes a refusal for an answer. It must have a place to ask.
        endpoints = cli_ctx.cloud.endpoints
        if not endpoints.has_endpoint_set('microsoft_graph_resource_id'):
            endpoints.microsoft_graph_resource_id = endpoints.resource_manager
        return ask_directory(cli_ctx, **kwargs)

    commands._graph_client_factory = ask_here


def there(sdk, version):
    folder = 'v' + version.replace('-', '_')
    return any(os.path.isdir(os.path.join(place, folder)) for place in sdk.submodule_search_locations)


def load_hidden():
    """Loads the sitecustomize that this one stands in front of, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    rest = [place for place in sys.path if os.path.abspath(place) != here]
    spec = importlib.machinery.PathFinder.find_spec('sitecustomize', rest)
    if spec is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, Mender(TABLE, mend_versions))
sys.meta_path.insert(0, Mender(ROLES, mend_roles))
load_hidden()
