"""The commands of the references, and what each reported; examples/seed-*.yaml are made from them.

Commands of bertorch, run_base and tnews are those of their pages, word for word, where `is_quoted`; others
follow from what a page says about its runs. `scripts/migration_docs.py` writes the files.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import bertune


@dataclass(frozen=True)
class Example:
    """A run file of a reference."""

    command: str
    about: str
    """What it is, and what the reference reported."""
    is_quoted: bool = True
    """Whether the command stands in the reference like this."""


ACCELERATE = 'accelerate launch --multi_gpu --num_processes=2 --gpu_ids="0,1" --num_machines=1'
LAUNCH = "CUDA_VISIBLE_DEVICES=0,1 python -m torch.distributed.launch --nproc_per_node=2 "
RUN_BASE = r"""# 单机单卡/多卡，num_processes要和gpu_ids数量相等，可以指定mixed_precision=fp16开启半精度训练
# model_checkpoint在output_dir目录下，最终模型保存在"output_dir/model_checkpoint"中

ACCELERATE --mixed_precision=no run_base.py \
	--seed 42 \
	--do_train \
	--train_file path/to/your/train_file \
	--validation_file path/to/your/validation_file \
	--do_predict \
	--test_file path/to/your/test_file \
	--cache_dir ../../data/cache_dir \
	--model_name_or_path path/to/pretrained_language_model \
RESUME	--per_device_train_batch_size 8 \
	--per_device_eval_batch_size 8 \
	--learning_rate 3e-5 \
	--num_train_epochs 2 \
	--checkpointing_steps epoch \
	--output_dir ../../data/outputs/clf \
	--model_checkpoint final_checkpoint \
	--with_tracking \
	--report_to tensorboard
""".replace("ACCELERATE", ACCELERATE)
RUN_BASE_PREDICT = r"""# 当test_file中无标签信息时，必须手动指定`num_labels`，回归任务中该值应为1
ACCELERATE run_base.py \
	--seed 42 \
	--cache_dir ../../data/cache_dir \
	--do_predict \
	--num_labels 5(optional) \
	--per_device_eval_batch_size 8 \
	--test_file path/to/your/test_file \
	--output_dir ../../data/outputs/clf \
	--model_checkpoint final_checkpoint
""".replace("ACCELERATE", ACCELERATE)
NER = (
    "run_ner.py --train_data_file ./data/ner/SET/train.json --dev_data_file ./data/ner/SET/dev.json "
    "--label_file ./data/ner/SET/labels.txt --tag bios --learning_rate 5e-5 --save_best_model --batch_size 32"
)
CRF = " --use_crf --crf_learning_rate 1e-4"
CLASSIFIER = (
    "run_classifier.py --train_data_file ./data/SET/train.END --dev_data_file ./data/SET/dev.END "
    "--label_file ./data/SET/labels.txt PAIR--save_best_model --epochs 3 --batch_size 32"
)
NLI = (
    "run_sentencebert.py --train_data_file ./data/SET/train.txt --dev_data_file ./data/SET/dev.txt "
    "--label_file ./data/SET/labels.txt --is_nli --save_best_model --epochs 3 --batch_size 32"
)
NOTEBOOK = (
    "python run_glue.py --task_name TASK --model_name_or_path distilbert-base-uncased --do_train --do_eval "
    "--max_seq_length 512 --learning_rate 2e-5 --per_device_train_batch_size 16 "
    "--per_device_eval_batch_size 16 --num_train_epochs 5 --weight_decay 0.01 --eval_strategy epoch "
    "--save_strategy epoch --load_best_model_at_end --metric_for_best_model METRIC --output_dir "
    "test-glue-TASK"
)
GLUE_METRICS = {
    "cola": "matthews_correlation", "mnli": "accuracy", "mnli-mm": "accuracy", "mrpc": "accuracy",
    "qnli": "accuracy", "qqp": "accuracy", "rte": "accuracy", "sst2": "accuracy", "stsb": "pearson",
    "wnli": "accuracy",
}  # fmt: skip
COLA = "It reports an MCC of 0.4092, 0.4775, 0.4999, 0.4916 and 0.5139 after epochs 1 to 5, in 170 s."
YELP = """python run_glue.py --model_name_or_path bert-base-cased --do_train --do_eval \\
    --train_file yelp-train-1000.jsonl --validation_file yelp-eval-1000.jsonl --max_seq_length 512 \\
    --per_device_train_batch_size 16 --num_train_epochs 3 --logging_steps 30 --eval_strategy epoch \\
    --output_dir models/bert-base-cased-finetune-yelp
"""
BERT = "bert-base-chinese, 2 GPUs"


def classifier(data: str, end: str, pair: str = "") -> str:
    """Return a command of run_classifier.py."""
    return LAUNCH + CLASSIFIER.replace("SET", data).replace("END", end).replace("PAIR", pair)


def ner(data: str, more: str = "") -> str:
    """Return a command of run_ner.py."""
    return LAUNCH + NER.replace("SET", data) + more


def sentences(what: str, figures: str) -> str:
    """Return what a run of bertorch is, and its figures."""
    return f"{what} ({BERT}). bertorch reports {figures}."


EXAMPLES: dict[str, Example] = {
    "seed-000-tnews": Example(
        """accelerate launch tnews.py \\
    --model_name_or_path junnyu/ChineseBERT-base \\
    --max_length 256 \\
    --per_device_train_batch_size 32 \\
    --per_device_eval_batch_size 32 \\
    --learning_rate 3e-5 \\
    --seed 42 \\
    --output_dir tnews_outputs \\
    --num_train_epochs 3
""",
        "ChineseBERT on TNEWS with the settings of JunnYu/ChineseBert_pytorch (examples/tnews there). It "
        "reports "
        "a dev accuracy of 0.5687, 0.5744 and 0.5742 after epochs 1 to 3. Needs pip install "
        "'bertune[chinese,hub]'; or give local files: data.train=train.tsv data.dev=dev.tsv "
        "'data.columns=[text,label]' model=FOLDER.",
    ),
    **{
        f"seed-001-glue-{task}": Example(
            NOTEBOOK.replace("TASK", task).replace("METRIC", metric),
            f"GLUE's {task} with the settings of the notebook. "
            + (COLA if task == "cola" else "It shows CoLA only."),
            is_quoted=False,
        )
        for task, metric in GLUE_METRICS.items()
    },
    "seed-002-yelp-small": Example(
        YELP,
        "Stars of a Yelp review from 1,000 reviews, as the notebook does it first; it scores 1,000 rows "
        "of test. "
        "It reports an accuracy of 0.500, 0.576 and 0.590 after epochs 1 to 3, in 341 s on a T4. Its "
        "rows, in "
        "Python: d = datasets.load_dataset('yelp_review_full').shuffle(seed=42); "
        "d['train'].select(range(1000)).to_json('yelp-train-1000.jsonl'); "
        "d['test'].select(range(1000)).to_json('yelp-eval-1000.jsonl').",
        is_quoted=False,
    ),
    "seed-003-classifier": Example(
        classifier("ChnSentiCorp", "tsv"), sentences("ChnSentiCorp", "a dev accuracy of 0.94083")
    ),
    "seed-003-classifier-pair": Example(
        classifier("AFQMC", "txt", "--is_text_pair "), sentences("AFQMC", "a dev accuracy of 0.74305")
    ),
    "seed-003-classifier-tnews": Example(
        classifier("TNEWS", "tsv"), sentences("TNEWS", "a dev accuracy of 0.56990"), is_quoted=False
    ),
    "seed-003-sentencebert": Example(
        LAUNCH + "run_sentencebert.py --train_data_file ./data/LCQMC/train.txt --dev_data_file "
        "./data/LCQMC/dev.txt --save_best_model --epochs 3 --batch_size 32",
        sentences("LCQMC, each text read by itself", "a dev accuracy of 0.86730"),
    ),
    "seed-003-sentencebert-nli": Example(
        LAUNCH + NLI.replace("SET", "CMNLI"), sentences("CMNLI", "a dev accuracy of 0.71105")
    ),
    "seed-003-sentencebert-csnli": Example(
        LAUNCH + NLI.replace("SET", "CSNLI"),
        sentences("Chinese SNLI", "a dev accuracy of 0.80567"),
        is_quoted=False,
    ),
    "seed-003-simcse": Example(
        LAUNCH + "run_simcse.py --pretrained_model_name_or_path uer/chinese_roberta_L-6_H-128 "
        "--train_data_file ./data/zhwiki/wiki_sents.txt --dev_data_file ./data/STS-B/sts-b-dev.txt "
        "--learning_rate 5e-5 --epochs 1 --dropout 0.1 --margin 0.2 --scale 20 --batch_size 32",
        "SimCSE on 150,000 sentences of the Chinese Wikipedia. bertorch reports Spearman 0.6048 and Pearson "
        "0.5870 on the dev set of STS-B at step 100.",
    ),
    "seed-003-batchneg": Example(
        "CUDA_VISIBLE_DEVICES=0,1,2,3 python -m torch.distributed.launch --nproc_per_node=4 "
        "run_batchneg.py --pretrained_model_name_or_path uer/chinese_roberta_L-6_H-128 --train_data_file "
        "./data/batchneg/paraphrase_lcqmc_semantic_pairs.txt --dev_data_file ./data/STS-B/sts-b-dev.txt "
        "--learning_rate 5e-5 --epochs 3 --margin 0.2 --scale 20 --batch_size 64 --mean_loss",
        "In-batch negatives on paraphrases. bertorch reports Spearman 0.6950 and Pearson 0.6801 on the "
        "dev set "
        "of STS-B. Its predict.py, the cosine of pairs: bertune predict ./checkpoint pairs.txt "
        "'data.columns=[text,text_b]' -o cosines.csv.",
    ),
    "seed-003-batchneg-stage2": Example(
        LAUNCH + "run_batchneg.py --pretrained_model_name_or_path "
        "uer/chinese_roberta_L-6_H-128 --init_from_ckpt ./checkpoint/pytorch_model.bin --train_data_file "
        "./data/batchneg/domain_finetune.txt --dev_data_file ./data/STS-B/sts-b-dev.txt --learning_rate 1e-5 "
        "--epochs 1 --margin 0.2 --scale 20 --batch_size 32 --mean_loss",
        "In-batch negatives on sentences of one domain, from the model of seed-003-batchneg. bertorch "
        "reports "
        "no figure.",
    ),
    "seed-003-ner": Example(ner("msra"), sentences("MSRA", "a dev F1 of 0.94179")),
    "seed-003-ner-crf": Example(ner("msra", CRF), sentences("MSRA with a CRF", "a dev F1 of 0.94265")),
    **{
        f"seed-003-ner-{data}{'-crf' if crf else ''}": Example(
            ner(data, f"{crf} --logging_steps 10 --save_steps 10{' --epochs 5' if data == 'weibo' else ''}"),
            sentences(f"{data}{' with a CRF' if crf else ''}", f"a dev F1 of {f1}"),
            is_quoted=False,
        )
        for data, crf, f1 in (
            ("resume", "", "0.95643"),
            ("resume", CRF, "0.95818"),
            ("ontonote4", "", "0.80206"),
            ("ontonote4", CRF, "0.80257"),
            ("weibo", "", "0.70588"),
            ("weibo", CRF, "0.72215"),
        )
    },
    "seed-004-train": Example(
        RUN_BASE.replace("RESUME", ""),
        "A text or a pair, and a label: NLPer-Arsenal's example. It reports no figure.",
    ),
    "seed-004-resume": Example(
        RUN_BASE.replace("RESUME", "\t--resume_from_checkpoint path/to/last_checkpoint \\\n"),
        "The same settings as seed-004-train: --resume continues a run where it was stopped.",
    ),
}
"""By the name of the run file."""


def example_text(name: str) -> str:
    """Return a run file: what it is, and the converted command."""
    example = EXAMPLES[name]
    about = textwrap.wrap(example.about, 100, break_on_hyphens=False, break_long_words=False)
    text = bertune.convert(example.command).text.replace("RUN.yaml", f"{name}.yaml")
    return "".join(f"# {line}\n" for line in [*about]) + "#\n" + text
