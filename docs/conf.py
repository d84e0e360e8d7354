"""How the documentation is built."""

from genesis_cache import __version__

project = "Genesis Cache"
author = "Genesis Cache contributors"
copyright = "Genesis Cache contributors"  # noqa: A001  # the name that Sphinx reads
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist", "smartquotes"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # annotations name the standard library, whose inventory needs the network

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False

html_theme = "furo"
html_title = "Genesis Cache"
