"""Sphinx configuration of the release notes."""

extensions = ['openstackdocstheme', 'reno.sphinxext']

project = 'Upgrade Service Release Notes'
copyright = 'OpenStack contributors'
root_doc = 'index'
release = ''
version = ''

openstackdocs_repo_name = 'openstack/upgrade-service'
openstackdocs_auto_name = False
openstackdocs_bug_project = 'upgrade-service'
openstackdocs_bug_tag = ''

html_theme = 'openstackdocs'
