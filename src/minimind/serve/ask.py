"""A client's body -> requests of the engine: prompts rendered, settings filled in, what cannot be done refused."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from minimind.errors import ConfigError, DataError, TokenizerError
from minimind.generation.grammar import Grammars, Guide
from minimind.generation.request import Request, misfit
from minimind.generation.sampling import Sampling
from minimind.serve.problems import Problem
from minimind.serve.schema import ChatBody, ChatMessage, CompletionBody, GenerationBody, NamedChoice
from minimind.text.answers import HERMES, AnswerStart
from minimind.text.chat_template import CALL_MARKS, THINK_MARKS
from minimind.text.conversation import Conversation, Message, render_prompt
from minimind.text.template_ids import is_thinking_open
from minimind.text.tokenizer import Tokenizer

__all__ = ["chat_requests", "completion_requests"]

# Each costs a server some 150 bytes until the reply is sent, and the reply 35. As many as evaluations ask for:
# 128 prompts of 4,096 tokens, each token and the likeliest in its place.
MAX_SCORES = 128 * 4096 * 2


def chat_requests(
    body: ChatBody, tokenizer: Tokenizer, defaults: Sampling, room: int, grammars: Grammars | None = None
) -> Sequence[Request]:
    """One request for each choice of a chat's body.

    room:      the context in tokens
    grammars:  of the tokenizer; made anew unless given
    Errors:    Problem
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise Problem(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
    choice = _choice(body)
    forced = _forced(choice)
    # A call that is forced comes without reasoning before it.
    wanted = False if forced else _wants_thinking(body, tokenizer)
    tools = [tool.model_dump(exclude_unset=True) for tool in body.tools or ()] if choice != "none" else []
    try:
        conversation = Conversation.parse({"messages": [_message(m) for m in body.messages]}, "messages", is_past=True)
        begun = conversation.messages[-1] if _goes_on(body) and not forced else None
        messages = conversation.messages[: None if begun is None else -1]
        prompt = render_prompt(messages, tools, tokenizer, bool(begun.reasoning_content) if begun else wanted)
        if begun is not None:
            prompt += _written(begun, tokenizer)
        thinking = is_thinking_open(prompt, tokenizer) and not forced
        if forced:
            prompt += [tokenizer.control(CALL_MARKS[0]), *tokenizer.encode(forced)]
        guide = _guide(body, tools, forced, thinking, grammars or Grammars(tokenizer), tokenizer)
    except (DataError, TokenizerError) as error:
        raise Problem(400, str(error), param="messages", code="invalid_value") from None
    limit = body.max_completion_tokens or body.max_tokens
    num_top = (body.top_logprobs or 0) if body.logprobs else None
    return _requests(
        body,
        [prompt],
        tokenizer,
        defaults,
        room,
        limit=limit,
        answer=replace(AnswerStart.of(tokenizer, thinking=thinking, opened=forced), is_begun=begun is not None),
        barred=frozenset() if tools else HERMES.call_ids(tokenizer),
        num_top=num_top,
        guide=guide,
    )


def _goes_on(body: ChatBody) -> bool:
    """Is the last message the beginning of the answer? Errors: Problem"""
    last = body.messages[-1]
    is_open = last.role == "assistant" and not last.tool_calls and not last.function_call
    if body.continue_final_message and not is_open:
        message = "continue_final_message needs an assistant's message without calls as the last"
        raise Problem(400, message, param="continue_final_message", code="invalid_value")
    if body.continue_final_message and body.add_generation_prompt:
        message = "continue_final_message goes on with a message, add_generation_prompt begins one; give one of them"
        raise Problem(400, message, param="continue_final_message", code="invalid_value")
    return is_open and body.continue_final_message is not False and not body.add_generation_prompt


def _written(begun: Message, tokenizer: Tokenizer) -> list[int]:
    """What an answer has already, behind its opening."""
    if not begun.reasoning_content:
        return tokenizer.encode(begun.content)
    if not begun.content:
        return tokenizer.encode(begun.reasoning_content)
    reasoning = tokenizer.encode(f"{begun.reasoning_content}\n")
    return [*reasoning, tokenizer.control(THINK_MARKS[1]), *tokenizer.encode(f"\n\n{begun.content}")]


def _wants_thinking(body: ChatBody, tokenizer: Tokenizer) -> bool | None:
    """As the template's own switch says; else by the effort, for a model that has a think block. None: nobody says."""
    options = body.chat_template_kwargs
    if options is not None and options.enable_thinking is not None:
        return options.enable_thinking
    if body.reasoning_effort is None:
        return None
    wants = body.reasoning_effort not in ("none", "minimal")
    return wants and tokenizer.control_names.issuperset(THINK_MARKS)


def _message(message: ChatMessage) -> dict[str, Any]:
    """As chat data. An answer that only mentions `</think>` stays whole: its sender keeps reasoning apart."""
    said = message.model_dump(exclude_unset=True)
    if message.role != "assistant":
        return said
    content = message.content
    begin = content if isinstance(content, str) else content[0].text if isinstance(content, list) and content else ""
    is_written_in = begin.lstrip().startswith("<think>")
    return {"content": "", **said} if is_written_in else {"content": "", "reasoning_content": "", **said}


def _guide(
    body: ChatBody,
    tools: Sequence[Mapping[str, Any]],
    forced: str,
    thinking: bool,
    grammars: Grammars,
    tokenizer: Tokenizer,
) -> Guide | None:
    """The form of the answer: a call that is forced, JSON or else calls, or calls as they come. Errors: Problem"""
    wanted = body.response_format
    parallel = body.parallel_tool_calls is not False
    try:
        if forced:
            return grammars.for_calls(tools, tokenizer.encode(forced))
        if wanted is not None and wanted.type != "text":
            if wanted.type == "json_schema" and wanted.json_schema is None:
                raise ValueError("json_schema is missing")
            named = wanted.json_schema
            schema = {"type": "object"} if named is None else named.schema_
            strict = named is not None and named.strict is True
            return grammars.for_answer(schema, tools, thinking=thinking, parallel=parallel, strict=strict)
        return grammars.for_calls(tools, parallel=parallel) if tools else None
    except ValueError as error:
        param = "tools" if forced or wanted is None else "response_format"
        raise Problem(400, f"{param}: {error}", param=param, code="invalid_schema") from None


def completion_requests(body: CompletionBody, tokenizer: Tokenizer, defaults: Sampling, room: int) -> Sequence[Request]:
    """One request for each prompt and choice, the choices of a prompt together. Errors: Problem"""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise Problem(400, "best_of: only the value of n is supported", param="best_of", code="unsupported")
    if body.max_tokens == 0 and not body.echo:
        raise Problem(400, "max_tokens is 0; expected at least 1 without echo", param="max_tokens")
    given: Any = [body.prompt] if isinstance(body.prompt, str) or isinstance(body.prompt[0], int) else body.prompt
    try:
        prompts = [tokenizer.begin(tokenizer.encode(p)) if isinstance(p, str) else list(p) for p in given]
    except TokenizerError as error:
        raise Problem(400, str(error), param="prompt", code="invalid_value") from None
    if any(index >= tokenizer.vocab_size for prompt in prompts for index in prompt):
        message = f"prompt: expected ids from 0 to {tokenizer.vocab_size - 1}"
        raise Problem(400, message, param="prompt", code="invalid_value")
    if len(prompts) * (body.n or 1) > 128:
        raise Problem(400, "prompts times n: expected at most 128", param="n", code="invalid_value")
    return _requests(
        body,
        prompts,
        tokenizer,
        defaults,
        room,
        # What OpenAI's completions draw when they are not told.
        limit=16 if body.max_tokens is None else body.max_tokens,
        num_top=body.logprobs,
        score_prompt=bool(body.echo) and body.logprobs is not None,
    )


def _choice(body: ChatBody) -> str | NamedChoice:
    """The tool choice, checked against the tools."""
    choice = body.tool_choice or ("auto" if body.tools else "none")
    names = {tool.function.name for tool in body.tools or ()}
    if choice in ("none", "auto"):
        return choice
    if not names:
        raise Problem(400, "tool_choice needs tools", param="tool_choice", code="invalid_value")
    if isinstance(choice, NamedChoice) and choice.function.name not in names:
        raise Problem(400, "tool_choice names a tool that is not in tools", param="tool_choice", code="invalid_value")
    return choice


def _forced(choice: str | NamedChoice) -> str:
    """What a call begins with. Cut where a model's own tokens are cut: before the space behind a colon."""
    if isinstance(choice, NamedChoice):
        return f'\n{{"name": "{choice.function.name}", "arguments":'
    return '\n{"name":' if choice == "required" else ""


def _requests(
    body: GenerationBody,
    prompts: Sequence[list[int]],
    tokenizer: Tokenizer,
    defaults: Sampling,
    room: int,
    *,
    limit: int | None,
    **settings: Any,
) -> list[Request]:
    for prompt in prompts:
        if problem := misfit(len(prompt), room, 0 if limit == 0 else 1):
            raise Problem(
                400,
                f"This model's maximum context length is {room} tokens: {problem}",
                param="messages" if isinstance(body, ChatBody) else "prompt",
                code="context_length_exceeded",
            )
    requests = [
        Request(
            prompt=prompt,
            sampling=_sampling(body, defaults, limit),
            stream=stream,
            stop_ids=tokenizer.end_ids,
            logit_bias=_bias(body.logit_bias or {}, tokenizer),
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            prompt_only=limit == 0,
            **settings,
        )
        for prompt in prompts
        for stream in range(body.n or 1)
    ]
    num_scores = sum(_num_scores(request, room) for request in requests)
    if num_scores > MAX_SCORES:
        message = f"the reply could have {num_scores:,} log-probabilities; expected at most {MAX_SCORES:,}"
        raise Problem(400, message, param="logprobs", code="invalid_value")
    return requests


def _num_scores(request: Request, room: int) -> int:
    """The most log-probabilities that the answer can come to tell."""
    if request.num_top is None:
        return 0
    size = len(request.prompt)
    num_drawn = 0 if request.prompt_only else min(request.sampling.max_tokens, room - size)
    return (num_drawn + size * request.score_prompt) * (request.num_top + 1)


def _sampling(body: GenerationBody, defaults: Sampling, limit: int | None) -> Sampling:
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    given = {name: value for name in names if (value := getattr(body, name)) is not None}
    # Other servers take these two for "the likeliest only" and "no limit".
    if given.get("top_p") == 0:
        given |= {"top_p": 1.0, "temperature": 0.0}
    given["top_k"] = max(given.get("top_k", defaults.top_k), 0)
    given_stop = defaults.stop if body.stop is None else body.stop
    stop = (given_stop,) if isinstance(given_stop, str) else tuple(given_stop)
    # Without a seed each answer is another one.
    seed = secrets.randbits(31) if body.seed is None else body.seed
    try:
        return replace(defaults, **given, stop=stop, seed=seed, max_tokens=limit or defaults.max_tokens)
    except ConfigError as error:
        raise Problem(400, str(error), code="invalid_value") from None


def _bias(given: Mapping[str, float], tokenizer: Tokenizer) -> dict[int, float]:
    if not all(key.isascii() and key.isdigit() and len(key) < 9 and int(key) < tokenizer.vocab_size for key in given):
        message = f"logit_bias: expected ids from 0 to {tokenizer.vocab_size - 1}"
        raise Problem(400, message, param="logit_bias", code="invalid_value")
    return {int(key): value for key, value in given.items()}
