"""Sphinx configuration of the release notes."""

extensions = ['openstackdocstheme', 'reno.sphinxext']

project = 'Upgrade Service Release Notes'
copyright = 'OpenStack contributors'  # noqa: A001 (Sphinx's name for it)
root_doc = 'index'
release = ''
version = ''

openstackdocs_repo_name = 'openstack/upgrade-service'
openstackdocs_auto_name = False
openstackdocs_bug_project = 'upgrade-service'
openstackdocs_bug_tag = ''

html_theme = 'openstackdocs'
