"""Lets Debian's azure-cli work with virtual machines.

That package asks its compute SDK for a version that Debian's SDK does not have, so every command about virtual
machines ends before it sends anything. Python loads this file when it starts; where azure-cli then loads its
table of versions, and the version that it wants is missing, it gets one that is there. Other programs, and an
azure-cli that is whole, run as ever.
"""

import importlib.machinery
import importlib.util
import os
import sys

TABLE = 'azure.cli.core.profiles._shared'
SDK = 'azure.mgmt.compute'
PRESENT = '2022-08-01'


class Mender:
    """Finds the table's module as Python would, and mends the table once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != TABLE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_mend(module):
            load(module)
            mend(module)

        spec.loader.exec_module = load_and_mend
        return spec


def mend(table):
    sdk = importlib.util.find_spec(SDK)
    if sdk is None or not there(sdk, PRESENT):
        return
    versions = table.AZURE_API_PROFILES['latest'][table.ResourceType.MGMT_COMPUTE].profile
    for operations, version in versions.items():
        if not there(sdk, version):
            versions[operations] = PRESENT


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


sys.meta_path.insert(0, Mender())
load_hidden()
