"""What runs inside vLLM's own worker processes, named to it as ``worker_extension_cls``."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

__all__ = ("WeightReloader",)


class WeightReloader:
    """Mixed into vLLM's worker: replaces the weights and makes every derived copy again."""

    model_runner: Any

    def surefoot_reload(
        self,
        weights_path: str | None = None,
        weights_iterator: Iterable[tuple[str, Tensor]] | None = None,
    ) -> int:
        """Replace the weights.

        vLLM's reload handles the linear layers. On a CPU a tied output head keeps a packed copy of the old embedding,
        which no error reports: its layers are packed again here.

        Args:
            weights_path: Folder with safetensors; or
            weights_iterator: the tensors, where worker and caller share a process.

        Returns:
            Number of embeddings that were processed again.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        self.model_runner.reload_weights(weights_iterator=weights_iterator, weights_path=weights_path)
        model = self.model_runner.get_model()
        n = 0
        if next(model.parameters()).device.type == "cpu":
            for module in model.modules():
                if isinstance(module, VocabParallelEmbedding):
                    module.quant_method.process_weights_after_loading(module)
                    n += 1
        return n
