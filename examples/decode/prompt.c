/* The prompt of a run without arguments: a passage of War and Peace (Tolstoy, Maude translation, public domain) with
 * facts between its sentences, and questions for three of them. */
#include "prompt.h"

static const char *const passages[] = {
    "After supper Nicholas, having undressed in his study and given instructions to the "
    "steward who had been waiting for him, went to the bedroom in his dressing gown, where he "
    "found his wife still at her table, writing. “What are you writing, Mary?” Nicholas "
    "asked. ",
    "The code of the old owl is 3907. ",
    "Countess Mary blushed. She was afraid that what she was writing would not be understood "
    "or approved by her husband. She had wanted to conceal what she was writing from him, but "
    "at the same time was glad he had surprised her at it and that she would now have to tell "
    "him. “A diary, Nicholas,” she replied, handing him a blue exercise book filled with her "
    "firm, bold writing. “A diary?” Nicholas repeated with a shade of irony, and he took up "
    "the book. It was in French. December 4. Today when Andrúsha (her eldest boy) woke up he "
    "did not wish to dress and Mademoiselle Louise sent for me. ",
    "The word of the pale deer is harp. ",
    "He was naughty and obstinate. I tried threats, but he only grew angrier. Then I took the "
    "matter in hand: I left him alone and began with nurse’s help to get the other children "
    "up, telling him that I did not love him. For a long time he was silent, as if "
    "astonished, then he jumped out of bed, ran to me in his shirt, and sobbed so that I "
    "could not calm him for a long time. It was plain that what troubled him most was that he "
    "had grieved me. ",
    "The code of the red fox is 4821. ",
    "Afterwards in the evening when I gave him his ticket, he again began crying piteously "
    "and kissing me. One can do anything with him by tenderness. “What is a ‘ticket’?” "
    "Nicholas inquired. “I have begun giving the elder ones marks every evening, showing how "
    "they have behaved.” Nicholas looked into the radiant eyes that were gazing at him, and "
    "continued to turn over the pages and read. In the diary was set down everything in the "
    "children’s lives that seemed noteworthy to their mother as showing their characters or "
    "suggesting general reflections on educational methods. ",
    "The code of the red owl is 9034. ",
    "They were for the most part quite insignificant trifles, but did not seem so to the "
    "mother or to the father either, now that he read this diary about his children for the "
    "first time. Under the date “5” was entered: Mítya was naughty at table. Papa said he was "
    "to have no pudding. He had none, but looked so unhappily and greedily at the others "
    "while they were eating! I think that punishment by depriving children of sweets only "
    "develops their greediness. Must tell Nicholas this. Nicholas put down the book and "
    "looked at his wife. The radiant eyes gazed at him questioningly: would he approve or "
    "disapprove of her diary? ",
    "The code of the calm lion is 1765. ",
    "There could be no doubt not only of his approval but also of his admiration for his "
    "wife. Perhaps it need not be done so pedantically, thought Nicholas, or even done at "
    "all, but this untiring, continual spiritual effort of which the sole aim was the "
    "children’s moral welfare delighted him. Had Nicholas been able to analyze his feelings "
    "he would have found that his steady, tender, and proud love of his wife rested on his "
    "feeling of wonder at her spirituality and at the lofty moral world, almost beyond his "
    "reach, in which she had her being. ",
    "The code of the blue fox is 6250. ",
    "He was proud of her intelligence and goodness, recognized his own insignificance beside "
    "her in the spiritual world, and rejoiced all the more that she with such a soul not only "
    "belonged to him but was part of himself. “I quite, quite approve, my dearest!” said he "
    "with a significant look, and after a short pause he added: “And I behaved badly today. "
    "You weren’t in the study. We began disputing—Pierre and I—and I lost my temper. But he "
    "is impossible: such a child! I don’t know what would become of him if Natásha didn’t "
    "keep him in hand.... ",
    "The word of the wild goat is bridge. ",
    "Have you any idea why he went to Petersburg? They have formed...” “Yes, I know,” said "
    "Countess Mary. “Natásha told me.” “Well, then, you know,” Nicholas went on, growing hot "
    "at the mere recollection of their discussion, “he wanted to convince me that it is every "
    "honest man’s duty to go against the government, and that the oath of allegiance and "
    "duty... I am sorry you weren’t there. They all fell on me—Denísov and Natásha... Natásha "
    "is absurd. How she rules over him! ",
    "The code of the calm crow is 5518. ",
    "And yet there need only be a discussion and she has no words of her own but only repeats "
    "his sayings...” added Nicholas, yielding to that irresistible inclination which tempts "
    "us to judge those nearest and dearest to us. He forgot that what he was saying about "
    "Natásha could have been applied word for word to himself in relation to his wife. “Yes, "
    "I have noticed that,” said Countess Mary. ",
};

static const planted_question questions[] = {
    {"Question: the code of the red fox is", "4821"},
    {" Question: the word of the wild goat is", "bridge"},
    {" Question: the code of the old owl is", "3907"},
};

const char *const *prompt_passages(uint32_t *count) {
  *count = sizeof passages / sizeof *passages;
  return passages;
}

const planted_question *prompt_questions(uint32_t *count) {
  *count = sizeof questions / sizeof *questions;
  return questions;
}
