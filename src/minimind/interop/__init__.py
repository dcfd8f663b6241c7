"""Models in the formats of other programs: GGUF and MiniMind's .pth in and out; Hugging Face, ONNX, PEFT folders out.

Coming in, files are read that nobody vouches for: `gguf_file.py` and `pth_file.py` compare every size with the file and
run nothing; `gguf_weights.py` and `upstream.py` say what they mean. Going out, a folder is read back before it has its
name: start at `exported.py`. A Hugging Face folder is this package's own format and needs no import.
"""
