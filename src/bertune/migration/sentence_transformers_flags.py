"""What sentence-transformers' training arguments, losses and other pieces are here."""

from __future__ import annotations

from dataclasses import dataclass

from bertune.migration.flag import Flag, missing, needless, setting

ARGUMENTS: tuple[Flag, ...] = (
    setting(
        "prompts", None, ("options.prompts", "options.default_prompt_name"),
        "one text to put before every text",
    ),
    needless(
        "batch_sampler", "batch_sampler",
        "no_duplicates: options.mask_false_negatives leaves repeated texts out of the negatives, and "
        "keeps the "
        "batch; group_by_label is not available",
    ),
    missing(
        "multi_dataset_batch_sampler", "proportional",
        "files of one run are one data set: data.train=[a.csv,b.csv], by the number of rows",
    ),
    missing(
        "router_mapping", None, "one encoder reads all texts; options.prompts tells queries from documents",
    ),
    missing(
        "learning_rate_mapping", None, "train.head_learning_rate and train.layer_decay are what there is",
    ),
    setting("warmup_ratio", None, "train.warmup_ratio", "now warmup_steps below 1"),
)  # fmt: skip
"""Fields of SentenceTransformerTrainingArguments beside those of TrainingArguments."""


@dataclass(frozen=True)
class Loss:
    """A loss, and the run that computes it."""

    name: str
    here: str
    """Task and options, as words of a command line; empty where there is none."""
    note: str = ""


LOSSES: tuple[Loss, ...] = (
    Loss("CoSENTLoss", "match options.loss=cosent", "scale 20, as there; the default for scores"),
    Loss("CosineSimilarityLoss", "match options.loss=cosine", "scores are scaled to 0 to 1 by their range"),
    Loss("ContrastiveLoss", "match options.loss=contrastive", "margin 0.5, as there"),
    Loss("OnlineContrastiveLoss", "", "contrastive without the choice of hard pairs"),
    Loss(
        "SoftmaxLoss", "match options.loss=softmax",
        "its layer has a rate of its own: options.classifier_learning_rate",
    ),
    Loss(
        "MultipleNegativesRankingLoss", "embed options.margin=0 options.mask_false_negatives=false",
        "with any number of negatives a row (negative_1, ...); true leaves out false negatives",
    ),
    Loss(
        "CachedMultipleNegativesRankingLoss", "embed options.margin=0 options.mask_false_negatives=false",
        "the same with a large train.batch_size; train.micro_batch_tokens bounds the memory",
    ),
    Loss(
        "MultipleNegativesSymmetricRankingLoss",
        "embed options.margin=0 options.mask_false_negatives=false options.symmetric=true",
    ),
    Loss(
        "CachedMultipleNegativesSymmetricRankingLoss",
        "embed options.margin=0 options.mask_false_negatives=false options.symmetric=true",
    ),
    Loss("MatryoshkaLoss", "embed options.matryoshka=[256,128,64]", "around any loss of match and embed"),
    Loss("Matryoshka2dLoss", "", "widths alone: options.matryoshka"),
    Loss("AdaptiveLayerLoss", "", "all layers are trained by the last one"),
    Loss("AnglELoss", "", "options.loss=cosent is the nearest"),
    Loss("TripletLoss", "", "embed reads triplets, and learns from all texts of a batch"),
    Loss("GISTEmbedLoss", "", "no second model guides; options.mask_false_negatives goes by the texts"),
    Loss("CachedGISTEmbedLoss", "", "as GISTEmbedLoss"),
    Loss("MarginMSELoss", "", "no distillation"),
    Loss("MSELoss", "", "no distillation"),
    Loss("DistillKLDivLoss", "", "no distillation"),
    Loss("EmbedDistillLoss", "", "no distillation"),
    Loss("ContrastiveTensionLoss", "", "embed on single texts (SimCSE) needs no labels either"),
    Loss(
        "ContrastiveTensionLossInBatchNegatives", "", "embed on single texts (SimCSE) needs no labels either",
    ),
    Loss("DenoisingAutoEncoderLoss", "", "embed on single texts (SimCSE) needs no labels either"),
    Loss("MegaBatchMarginLoss", "", "embed with a large train.batch_size"),
    Loss("BatchAllTripletLoss", "", "no loss over classes of single texts: classify, or pairs of one class"),
    Loss("BatchHardTripletLoss", "", "as BatchAllTripletLoss"),
    Loss("BatchHardSoftMarginTripletLoss", "", "as BatchAllTripletLoss"),
    Loss("BatchSemiHardTripletLoss", "", "as BatchAllTripletLoss"),
    Loss("GlobalOrthogonalRegularizationLoss", "", "a regularizer beside a loss"),
)  # fmt: skip

PIECES: tuple[tuple[str, str, str], ...] = (
    ("`SentenceTransformer(MODEL)`", "`bertune.load(MODEL)`", "your folders open as they are"),
    (
        "`.encode`, `.encode_query`, `.encode_document`", "the same names, or `bertune embed`",
        "no padding, in file order",
    ),
    ("`.similarity`, `.similarity_pairwise`", "the same names", "`options.similarity`"),
    (
        "`SentenceTransformerTrainer`", "`bertune train match`, `bertune train embed`",
        "a run file instead of a script",
    ),
    (
        "`train_dataset` with scores or labels", "`match`",
        "columns by name: sentence1, sentence2, score and others",
    ),
    ("`train_dataset` of anchor, positive, negative", "`embed`", "columns by name"),
    ("`eval_dataset`", "`data.dev`", "scores, not the loss alone, decide"),
    ("`evaluator=EmbeddingSimilarityEvaluator`", "dev rows with scores", "Spearman, Pearson"),
    ("`BinaryClassificationEvaluator`", "dev rows labelled 0 and 1", "average precision, F1, accuracy"),
    (
        "`InformationRetrievalEvaluator`",
        "`bertune evaluate MODEL QUERIES --corpus FILE --qrels FILE`", "NDCG, MRR, recall",
    ),
    ("`TripletEvaluator`", "dev rows of query, text and negatives", "NDCG, MRR, recall"),
    (
        "`models.Pooling(pooling_mode=...)`", "`options.pooling`",
        "mean, cls, max, lasttoken, weightedmean, ...",
    ),
    ("`models.Dense`", "`options.dense`", "[[512, tanh]]"),
    ("`models.Normalize`", "`options.normalize`", ""),
    ("`EarlyStoppingCallback`", "`train.patience`, `train.min_delta`", ""),
    (
        "`model.fit` (version 2)", "the same as the Trainer",
        "warmup_steps, scheduler: `train.warmup_steps`, `train.schedule`",
    ),
    ("`save_pretrained`, `save`", "OUT", "opens in SentenceTransformer"),
    ("`util.semantic_search`", "`bertune search MODEL CORPUS QUERY`", "with an index on disk"),
    ("`util.paraphrase_mining`", "`bertune search MODEL CORPUS --pairs`", ""),
    ("`CrossEncoder`", "`bertune train classify` or `regress` on pairs", "the folder opens in CrossEncoder"),
    ("`SparseEncoder`", "not available", ""),
)  # fmt: skip
"""Other pieces: there, here, what to know."""
