//! Where a model acts: an environment's tasks as prompts.

use super::act::{Turns, Walk};
use super::section::Agency;
use crate::agent::{self, Agent, Environment, Episode, Limits, Oracle, Tool};
use crate::data::Tokenizer;
use crate::data::chat::ChatTemplate;
use crate::data::examples::Prompt;
use crate::error::{Error, Result};
use serde_json::json;

/// Where a model acts.
pub(super) struct Stage {
    environment: Box<dyn Environment>,
    pub turns: Turns,
    pub agency: Agency,
}

/// The field of a prompt that has the number of its task.
const TASK: &str = "task";

fn task_of(prompt: &Prompt) -> u64 {
    prompt.fields[TASK].as_u64().expect("a number")
}

impl Stage {
    /// The environment of a recipe.
    ///
    /// # Errors
    /// There is none, or the template cannot write its turns.
    pub fn open(agency: &Agency, template: Option<&ChatTemplate>, tokenizer: &Tokenizer) -> Result<Stage> {
        let environment = agent::open(&agency.environment, agency.seed)?;
        let Some(template) = template else {
            let hint = "take \"chatml\" or \"plain\"";
            return Err(Error::config("data.template", "agents speak by a chat template", hint));
        };
        let tools: Option<Vec<_>> = agency.tools.then(|| environment.tools().iter().map(Tool::openai).collect());
        let turns = Turns::new(template, tokenizer, tools.as_deref())?;
        Ok(Stage { environment, turns, agency: agency.clone() })
    }

    /// An episode of task `task`.
    fn episode(&self, task: u64, split: agent::Split) -> Episode {
        let limits =
            Limits { turns: self.agency.turns, calls: self.agency.turns, tokens: usize::MAX, ..Limits::default() };
        Episode::begin(self.environment.fresh(), task, split, "model", self.agency.hold, limits)
    }

    /// The calls that the planner needs for task `task`; `None` where there is no planner, or it finds no way.
    fn length(&self, task: u64) -> Option<usize> {
        let mut episode = self.episode(task, agent::Split::Train);
        while !episode.over() {
            let said = Oracle.act(&episode);
            episode.act(&said);
        }
        let trace = episode.end().0;
        trace.success.then(|| trace.calls())
    }

    /// Its tasks to learn from, with a curriculum those that are soonest done first, and those to be judged by, as prompts.
    ///
    /// # Errors
    /// The tokenizer lacks a character; there is a curriculum and no planner.
    pub fn prompts(&self, tokenizer: &Tokenizer) -> Result<[Vec<Prompt>; 2]> {
        let of = |split: agent::Split, n: u64| {
            let prompt = |task: u64| {
                let episode = self.episode(task, split);
                let ids = tokenizer.encode_with_special(&self.turns.asked(episode.goal()))?;
                let fields = json!({TASK: task, "split": split});
                let fields = fields.as_object().expect("an object").clone();
                Ok(Prompt { ids, text: episode.goal().to_owned(), fields, ..Prompt::default() })
            };
            (0..n).map(prompt).collect::<Result<Vec<_>>>()
        };
        let mut train = of(agent::Split::Train, self.agency.tasks)?;
        if self.agency.curriculum > 0.0 {
            let lengths: Option<Vec<usize>> = (0..self.agency.tasks).map(|task| self.length(task)).collect();
            let Some(lengths) = lengths else {
                let problem = "the environment has no planner that does all of its tasks, so none is known to be easy";
                return Err(Error::config("model.reinforce.agent.curriculum", problem, "set it to 0"));
            };
            train.sort_by_key(|prompt| lengths[task_of(prompt) as usize]);
        }
        Ok([train, of(agent::Split::Val, self.agency.held_out)?])
    }

    /// An episode of the task of a prompt, and its text.
    pub fn walk(&self, prompt: &Prompt) -> Walk {
        let task = task_of(prompt);
        let split = serde_json::from_value(prompt.fields["split"].clone()).expect("a split");
        Walk::of(prompt.ids.clone(), self.episode(task, split))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Document;
    use crate::data::chat::PLAIN;

    #[test]
    fn a_curriculum_puts_tasks_that_are_sooner_done_first() {
        let document = Document { text: "abc".into(), ..Document::default() };
        let bytes = Tokenizer::train_bpe([document].into_iter().map(Ok), 257, &|_| {}).expect("a tokenizer");
        let tokenizer = bytes.with_chat_template(PLAIN);
        let template = ChatTemplate::of(&tokenizer).expect("a template");
        let of = |curriculum: f64| {
            let agency = Agency { tasks: 40, held_out: 4, curriculum, ..Agency::default() };
            let stage = Stage::open(&agency, template.as_ref(), &tokenizer).expect("the village");
            let [train, val] = stage.prompts(&tokenizer).expect("tasks");
            let tasks: Vec<u64> = train.iter().map(task_of).collect();
            let lengths: Vec<usize> = tasks.iter().map(|&task| stage.length(task).expect("a way")).collect();
            (tasks, lengths, val.iter().map(task_of).collect::<Vec<_>>())
        };
        let (tasks, lengths, val) = of(0.0);
        assert_eq!((tasks, val), ((0..40).collect(), (0..4).collect()));
        let (mut tasks, sorted, _) = of(0.5);
        assert!(sorted.is_sorted() && !lengths.is_sorted() && sorted[0] + 3 < sorted[39], "{sorted:?}");
        tasks.sort_unstable();
        assert_eq!(tasks, (0..40).collect::<Vec<_>>());
    }
}
