"""A tool is shown in OpenAI's form."""

import json

from minimind.tools.builtin import TOOLS


def test_schemas_are_openai_functions_that_name_their_required_arguments() -> None:
    for name, tool in TOOLS.items():
        function = json.loads(json.dumps(tool.schema))["function"]
        assert function["name"] == name
        assert function["parameters"]["required"] == list(function["parameters"]["properties"])
