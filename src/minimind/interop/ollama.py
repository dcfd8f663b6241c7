"""The Modelfile beside a GGUF file: how ollama has to write a conversation for this model.

ollama does not run the Jinja template inside a GGUF file; without a TEMPLATE it would send the bare words. This one
writes what `text/conversation.py` writes for messages of system, user and assistant, think blocks included. It knows no
tools: for those use a program that reads the template in the file.
"""

from minimind.model import ModelConfig
from minimind.text.chat_template import THINK_MARKS
from minimind.text.tokenizer import Tokenizer

__all__ = ["modelfile"]

# A Go template, in which a dash eats the line break beside it; those that are left are tokens.
_TEMPLATE = """{{- range .Messages }}
{{- if eq .Role "assistant" }}<|im_start|>assistant
ANSWER<|im_end|>
{{ else }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}
{{- end }}<|im_start|>assistant
OPENING"""
_ANSWER = "<think>\n{{ .Thinking }}\n</think>\n\n{{ .Content }}"
_OPENING = "<think>\n{{ if not $.Think }}\n</think>\n\n{{ end }}"
# A longer context takes more memory than a chat needs; who wants it changes the line.
LONGEST_CONTEXT = 4096


def modelfile(file: str, config: ModelConfig, tokenizer: Tokenizer) -> str:
    """For the GGUF file of that name beside it."""
    # What ollama makes of a template that it knows by heart is better than what we could say of it.
    if tokenizer.template is not None:
        stops = "".join(f'PARAMETER stop "{name}"\n' for name in sorted(tokenizer.end_names))
        return f"FROM ./{file}\n{stops}{_settings(config)}"
    thinks = tokenizer.control_names.issuperset(THINK_MARKS)
    template = _TEMPLATE.replace("ANSWER", _ANSWER if thinks else "{{ .Content }}")
    template = template.replace("OPENING", _OPENING if thinks else "")
    return (
        f'FROM ./{file}\nTEMPLATE """{template}"""\n'
        'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\n'
        f"{_settings(config)}"
    )


def _settings(config: ModelConfig) -> str:
    return (
        f"PARAMETER num_ctx {min(config.max_position_embeddings, LONGEST_CONTEXT)}\n"
        "PARAMETER temperature 0.7\nPARAMETER top_p 0.9\n"
    )
